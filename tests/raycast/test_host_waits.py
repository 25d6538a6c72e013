"""How often the host waits for the device: three times for an image, for its gradient not once more, and where samples
have room for nothing at all."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable

import pytest
import torch

from host_waits import HostWaits
from sdfgan import build_info, cameras, fields, raycast
from sdfgan.gan import DISCRIMINATORS, GanConfig
from sdfgan.gan.data import TrainingData
from sdfgan.gan.job import GanJob
from sdfgan.gan.losses import ADVERSARIAL_LOSSES
from sdfgan.gan.objective import Objective

# Counted as here, at commit 7bf15be a render waited 72 times, 101 times with its gradient, and a step of training 95
# times; they made 1185, 2333 and 2752 operations, and copied 7, 11 and 4 times from numbers in Python.
# Now an image waits for the numbers of its layers, of what is seen, and of pixels beside creases, unless there is room
# for them beforehand; a step also for its numbers, at its end, where it also reads what needed room.
WAITS = {"render": 3, "gradient": 3, "step": 4}
WAITS_WITH_ROOM = {"render": 0, "gradient": 0, "step": 2}
MAX_OPERATIONS = {"render": 540, "gradient": 850, "step": 1450}
MORE_WITH_ROOM = 300  # creases are blended whether or not there are any, which nobody waits to know


def check(what: str, run: Callable[[], object], *, room: bool = False) -> None:
    with HostWaits() as seen:
        run()
    print(f"{what}: {seen.operations} operations, waits: {seen.waits}, uploads: {seen.uploads}")
    assert seen.waits.total() == (WAITS_WITH_ROOM if room else WAITS)[what], seen.waits
    assert seen.operations < MAX_OPERATIONS[what] + (MORE_WITH_ROOM if room else 0)
    assert not seen.uploads


def renderer(resolution: int, device: str, room: raycast.Room | None = None) -> Callable[[], raycast.Rendering]:
    torch.manual_seed(0)
    field = fields.FilmSirenSDF(latent_size=16).to(device)
    with torch.no_grad():
        field.sdf_head.mul_(30)  # bumps
    latents, turn = torch.randn(16, 16).to(device), torch.linspace(0, 1, 16)
    axes = cameras.rotate_axes((2 * turn - 0.8, 5 * turn)).to(device)
    return lambda: raycast.render(sdf=field, axes=axes, latents=latents, resolution=resolution, room=room)


@pytest.mark.parametrize("resolution", [32, 64])
@pytest.mark.parametrize("has_room", [False, True])
def test_a_render(resolution: int, has_room: bool) -> None:
    render = renderer(resolution, "cpu", raycast.Room() if has_room else None)
    render()  # the first counts what needs room
    check("render", torch.no_grad()(render), room=has_room)

    def with_gradient() -> None:
        made = render()
        (made.rgba.square().mean() + made.normals.mean()).backward()

    with_gradient()  # the first measures memory
    check("gradient", with_gradient, room=has_room)


@pytest.mark.parametrize("has_room", [False, True])
def test_a_step_of_training(has_room: bool) -> None:
    """As on a GPU: one chunk, bfloat16; smaller, which changes no count but that of rounds of some minima."""
    options = {"batch_size": 8, "chunk_size": 8, "resolution": 32, "width": 32, "discriminator_channels": 8}
    reals = torch.randint(256, (32, 4, 32, 32), dtype=torch.uint8)
    job = GanJob(GanConfig(device="cpu", precision="bf16", **options).resolved(), TrainingData.of(reals))
    job.threads.close()  # threads of their own would not be counted
    job.room = raycast.Room() if has_room else None
    job.step()  # the first measures memory and makes the optimisers' state
    check("step", job.step, room=has_room)


@pytest.mark.gpu
@pytest.mark.skipif(not (torch.cuda.is_available() and build_info()["cuda"]), reason="needs a GPU")
@pytest.mark.parametrize("what", ["render", "gradient"])
@pytest.mark.parametrize("has_room", [False, True])
def test_waits_of_a_gpu(what: str, has_room: bool) -> None:
    """Those that torch itself sees."""
    render = renderer(64, "cuda", raycast.Room() if has_room else None)

    def run() -> None:
        with torch.set_grad_enabled(what == "gradient"):
            made = render()
        if what == "gradient":
            made.rgba.square().mean().backward()

    run()
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = Counter(f"{w.filename}:{w.lineno}" for w in caught if "synchroniz" in str(w.message))
    print(f"{what}: {waits.total()} waits on a GPU: {waits}")
    assert waits.total() == (WAITS_WITH_ROOM if has_room else WAITS)[what], waits


def test_what_is_counted() -> None:
    x, mask = torch.arange(6.0), torch.arange(6) > 2
    with HostWaits() as seen:
        x[mask], x[mask.nonzero()[:, 0]]
        x[mask] = 0.0  # fills, and waits for nothing
        x[mask] = torch.ones(3)
        float(x.sum()), x.tolist(), bool(mask.all())
        x[:2], torch.where(mask, x, 0), x[torch.arange(2)]
    assert seen.waits.total() == 6
    assert seen.operations > 10
    with HostWaits() as seen:
        x.new_tensor([1.0]), torch.tensor(2.0), torch.as_tensor(x), x.new_full((), 3.0)
    assert seen.waits.total() == 0 and seen.uploads.total() == 2
    with HostWaits() as seen:
        x[torch.arange(2)] = 1.0  # a number that is copied to the device
        x[mask], x[0], x[1:2] = 1.0, 1.0, 1.0
        x.index_fill_(0, torch.arange(2), 1.0)
    assert seen.uploads.total() == 1
    y = torch.arange(6.0).requires_grad_()
    with HostWaits() as seen:
        y[mask].sum().backward()
    assert seen.waits.total() == 2  # the backward pass counts


@pytest.mark.parametrize(("discriminator", "gan_loss"), [
    *((name, "logistic") for name in DISCRIMINATORS), *(("small", name) for name in ADVERSARIAL_LOSSES),
])  # fmt: skip
def test_what_a_cuda_graph_records(discriminator: str, gan_loss: str) -> None:
    """The discriminator's part of a step neither waits nor copies numbers of Python: a recording allows neither."""
    options = {"discriminator": discriminator, "gan_loss": gan_loss, "r1_gamma": 1.0, "pose_weight": 1.0}
    config = GanConfig(device="cpu", resolution=16, batch_size=4, latent_size=4, precision="bf16", **options)
    objective = Objective.at(config.resolved(), 0)
    network = DISCRIMINATORS[discriminator]([16], 8, latent_size=4, guess_direction=True)
    images, latents, axes = torch.rand(4, 4, 16, 16), torch.randn(4, 4), torch.eye(3).expand(4, 3, 3)
    with HostWaits() as seen:
        loss, _ = objective.discriminator_loss(network, images, images.flip(0), latents, axes, torch.rand(4))
        torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
        leaf = images.clone().requires_grad_()
        loss, _ = objective.adversarial_loss(network, leaf, latents, axes)
        torch.autograd.grad(loss, leaf)
    assert not seen.waits and not seen.uploads, (seen.waits, seen.uploads)
