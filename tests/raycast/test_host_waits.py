"""How often the host waits for the device: half as often as it once did, at most."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from host_waits import HostWaits
from sdfgan import cameras, fields, raycast
from sdfgan.gan import GanConfig
from sdfgan.gan.trainer import Trainer

# At commit 7bf15be a render waited 72 times, 101 times with its gradient, and a step of training 95 times, counted as
# here; they made 1185, 2333 and 2847 operations, and copied 7, 11 and 4 times from numbers in Python.
MOST_WAITS = {"render": 72 // 2, "gradient": 101 // 2, "step": 95 // 2}
MOST_OPERATIONS = {"render": 1185, "gradient": 2333, "step": 2847}


def check(what: str, run: Callable[[], object]) -> None:
    with HostWaits() as seen:
        run()
    print(f"{what}: {seen.operations} operations, waits: {seen.waits}, uploads: {seen.uploads}")
    assert 0 < seen.waits.total() <= MOST_WAITS[what], seen.waits
    assert seen.operations < MOST_OPERATIONS[what]
    if what != "step":  # which draws on the CPU
        assert not seen.uploads


@pytest.mark.parametrize("resolution", [32, 64])
def test_a_render(resolution: int) -> None:
    torch.manual_seed(0)
    field = fields.FilmSirenSDF(latent_size=16)
    with torch.no_grad():
        field.sdf_head.mul_(30)  # bumps
    latents, turn = torch.randn(16, 16), torch.linspace(0, 1, 16)
    axes = cameras.rotate_axes((2 * turn - 0.8, 5 * turn))

    def render() -> raycast.Rendering:
        return raycast.render(sdf=field, axes=axes, latents=latents, resolution=resolution)

    check("render", torch.no_grad()(render))

    def with_gradient() -> None:
        made = render()
        (made.rgba.square().mean() + made.normals.mean()).backward()

    check("gradient", with_gradient)


def test_a_step_of_training() -> None:
    """As on a GPU: one chunk, bfloat16; smaller, which changes no count but that of rounds of some minima."""
    options = {"batch_size": 16, "chunk_size": 16, "resolution": 32, "width": 32, "precision": "bf16"}
    trainer = Trainer(GanConfig(device="cpu", **options).resolved())
    trainer.threads.close()  # threads of their own would not be counted
    reals = torch.randint(256, (32, 4, 32, 32), dtype=torch.uint8)
    trainer.step(reals)  # the first measures memory and makes the optimisers' state
    check("step", lambda: trainer.step(reals))


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
    y = torch.arange(6.0).requires_grad_()
    with HostWaits() as seen:
        y[mask].sum().backward()
    assert seen.waits.total() == 2  # the backward pass counts
