"""Every method trains: each loss, generator, discriminator and option, at a tiny size.

Two steps of each are quick, and show that its numbers are finite; what it learns in fifty is for the slow lane.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sdfgan.data.image_sets import InMemory, shrink
from sdfgan.errors import UserError
from sdfgan.fields import eikonal_loss
from sdfgan.gan import DISCRIMINATORS, GanConfig, drawing
from sdfgan.gan.batches import Batches
from sdfgan.gan.curricula import Stage
from sdfgan.gan.data import TrainingData
from sdfgan.gan.discriminators import logits_of
from sdfgan.gan.job import GanJob
from sdfgan.gan.losses import ADVERSARIAL_LOSSES, r1_penalty
from sdfgan.gan.models import sample_latents
from sdfgan.gan.objective import Objective
from sdfgan.training.graphs import Graphs
from sdfgan.training.health import SYMPTOMS
from tiny_gan import LONG, TINY, check, fit_quickly, lengths, trained


@lengths
@pytest.mark.parametrize("loss", ADVERSARIAL_LOSSES)
def test_losses(loss: str, steps: int, pictures: Tensor) -> None:
    # In fifty steps chance decides much: the bounds below are those of this network and seed.
    _, logs = trained(pictures, steps, gan_loss=loss, discriminator="small")
    check(logs, bound=60)
    if steps < LONG:
        return
    assert logs[-1]["eikonal"] < 0.1 and 0.02 < logs[-1]["coverage"] < 0.6
    assert logs[-1].get("moments", 44) > 1, "not all images at the pole"
    # The discriminator has found something out: it puts reals above fakes.
    assert sum(log["gap"] for log in logs[-20:]) > 0


class Elsewhere:
    """A source of pictures, neither a tensor nor a set of the package; it keeps what it was asked for and gave."""

    poses = None

    def __init__(self, images: Tensor) -> None:
        self.images, self.asked, self.gave = images, [], []

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor, resolution: int) -> Tensor:
        self.asked.append((len(indices), resolution))
        self.gave.append(shrink(self.images[indices], resolution))
        return self.gave[-1]


@pytest.mark.parametrize(("of", "interval"), [("logit", 4), ("probability", 1)])
def test_the_discriminator_descends_half_of_gamma_times_r1(of: str, interval: int, pictures: Tensor) -> None:
    """Times the interval, since it is left out in between."""
    config = GanConfig(**{**TINY, "r1_gamma": 3.0, "r1_interval": interval, "r1_of": of}).resolved()
    trainer = GanJob(config, TrainingData.of(pictures))
    try:
        batches = Batches(config, trainer.random, trainer.device, trainer.ranks)
        objective = Objective.at(config, 0)
        with torch.no_grad():
            fake = objective.render(trainer.generator, batches.fakes(trainer.generator, trainer.poses)[:1])[0]
        reals = batches.reals(InMemory(pictures))[0]
        assert objective.r1_weight == 3
        gradients = {}
        for r1_weight in (3.0, 0.0):
            now = dataclasses.replace(objective, r1_weight=r1_weight)
            images = fake.images(4), reals, fake.latents, fake.axes
            loss, _ = now.discriminator_loss(trainer.discriminator, *images)
            gradients[r1_weight] = torch.autograd.grad(
                loss, list(trainer.discriminator.parameters()), materialize_grads=True
            )
        penalty = 1.5 * interval * r1_penalty(logits_of(trainer.discriminator, 1.0), reals, of)
        expected = torch.autograd.grad(
            penalty, list(trainer.discriminator.parameters()), allow_unused=True, materialize_grads=True
        )
        difference = [one - other for one, other in zip(gradients[3.0], gradients[0.0], strict=True)]
        assert sum(part.abs().sum() for part in expected) > 1e-3
        torch.testing.assert_close(difference, list(expected), atol=1e-5, rtol=1e-3)
    finally:
        trainer.close()


def test_r1_falls_by_halves_in_equal_parts_of_the_run() -> None:
    def weights(final: float, *steps: int, interval: int = 1) -> list[float]:
        sizes = {**TINY, "steps": 1400, "r1_gamma": 5.0, "r1_interval": interval, "r1_final": final}
        config = GanConfig(**sizes).resolved()
        return [Objective.at(config, step).r1_weight for step in steps]

    assert GanConfig(device="cpu").resolved().r1_final == 0.25
    assert GanConfig(device="cpu", curriculum="growing").resolved().r1_final == 1.0
    assert weights(1.0, 0, 700, 1399) == [5, 5, 5]
    assert weights(0.25, 0, 466, 467, 933, 934, 1399, 1400) == [5, 5, 2.5, 2.5, 1.25, 1.25, 1.25]
    assert weights(0.25, 0, 4, 8, 960, interval=8) == [5, 0, 5, 1.25]
    assert weights(0.3, 0, 467, 934) == pytest.approx([5, 5 * 0.3**0.5, 1.5])
    with pytest.raises(UserError, match="--r1-final must be at most 1, got 2"):
        weights(2.0, 0)


class Recorder(Graphs):
    """Graphs without CUDA: calls the function of the first call of a key again, with tensors that are its own."""

    def __init__(self) -> None:
        super().__init__()
        self.functions: dict[Any, Any] = {}

    def __call__(self, key: Any, function: Any, *inputs: Tensor) -> Any:
        return self.functions.setdefault(key, function)(*[x.detach().clone() for x in inputs])


@pytest.mark.parametrize("options", [{}, {"gan_loss": "wgan-gp"}, {"latent_weight": 0.1, "top_k_interval": 2}])
def test_what_graphs_record_depends_on_tensors_alone(options: dict[str, Any], pictures: Tensor) -> None:
    logs = []
    for graphs in (None, Recorder()):
        job = GanJob(GanConfig(**{**TINY, "r1_interval": 2, **options}).resolved(), TrainingData.of(pictures))
        job.graphs = graphs
        logs.append([job.step() for _ in range(4)])
        job.close()
    assert isinstance(graphs, Recorder) and len(graphs.functions) == (3 if "gan_loss" not in options else 2)
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    ("loss", "without"),
    [
        ("logistic", ["discriminator at the pole"]),
        ("wgan-gp", ["discriminator wins", "discriminator at the pole"]),
        ("sphere", ["discriminator wins"]),
    ],
)
def test_every_sign_of_ill_health_finds_its_numbers(loss: str, without: list[str], pictures: Tensor) -> None:
    """`blobs` are measured now and then; whether reals and fakes are on the right side of 0 means nothing to WGAN."""
    _, logs = trained(pictures, steps=1, gan_loss=loss)
    measured = logs[0].keys() | {"blobs", "real_blobs"}
    assert [symptom.name for symptom in SYMPTOMS if not symptom.needs <= measured] == without


def test_how_much_memory_is_free_changes_nothing(pictures: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    for free in (2**40, 2**16):
        monkeypatch.setattr("sdfgan.raycast.memory.free_memory", lambda device, free=free: free)
        trainer, _ = trained(pictures, steps=2, resolution=32, chunk_size=4)
        states.append(trainer.generator.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@lengths
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminators(name: str, steps: int, pictures: Tensor) -> None:
    _, logs = trained(pictures, steps, discriminator=name)
    check(logs)
    assert steps < LONG or sum(log["loss_d"] for log in logs[-10:]) < sum(log["loss_d"] for log in logs[:10]) + 1


@lengths
@pytest.mark.parametrize(
    "options",
    [
        {"generator": "mlp"},
        {"generator": "mlp", "activation": "relu", "weight_norm": True, "texture_latent_size": 4},
        {"generator": "dfr", "latent_std": 2.5},
        {"texture_latent_size": 4, "texture_layers": 4, "color_space": "hsv", "light": "random"},
    ],
    ids=["mlp", "mlp-relu", "dfr", "deep-texture"],
)
def test_generators(options: dict, steps: int, pictures: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    # A shorter fit with larger steps, for time.
    monkeypatch.setattr("sdfgan.fields.dfr.DfrSDF.precondition", fit_quickly)
    trainer, logs = trained(pictures, steps, **options)
    check(logs)
    assert steps < LONG or (logs[-1]["eikonal"] < 0.3 and 0.01 < logs[-1]["coverage"] < 0.9)
    latents = sample_latents(trainer.config, [0, 1])
    field = trainer.average
    points = torch.rand(10, 3)
    colours = [field.rgb(points, field.condition(latent), None) for latent in latents.split(1)]
    assert not torch.allclose(*colours, atol=1e-4), "latents differ in colour"


@lengths
@pytest.mark.parametrize(
    "options",
    [
        {"ada_target": 0.2, "ada_images": 100},
        {"instance_noise": 0.2, "instance_noise_steps": 30, "blur": 2.0, "blur_steps": 30},
        {"top_k_interval": 1, "top_k_floor": 0.5, "discriminator_steps": 2},
        {"latent_weight": 1.0, "pose_weight": 15.0, "back_face_weight": 1.0, "learning_rate_discriminator": 2e-3},
        {"channels": 3, "recompute": True, "minimal_surface_weight": 1.0},
        {"precision": "bf16", "eikonal_final": 2.0, "gradient_clip_discriminator": 1.0},
    ],
    ids=lambda options: "-".join(options),
)
def test_options(options: dict, steps: int, pictures: Tensor) -> None:
    _, logs = trained(pictures, steps, **options)
    check(logs)
    assert ("full" in logs[0]) == (options.get("channels") != 3), "silhouettes are judged only where they are seen"
    if "pose_weight" in options and steps == LONG:
        first, last = (sum(log["pose_d"] for log in part) / 10 for part in (logs[:10], logs[-10:]))
        assert last < first, "the discriminator learns to tell poses"


def test_all_at_once_on_each_device(device: torch.device, pictures: Tensor) -> None:
    """Many options together, in the device's own default precision."""
    options = {"top_k_interval": 1, "ada_target": 0.2, "ada_images": 10, "instance_noise": 0.1, "blur": 1.0}
    options |= {"latent_weight": 1.0, "pose_weight": 1.0, "back_face_weight": 1.0, "discriminator": "stylegan2"}
    trainer, logs = trained(pictures, steps=12, **{**options, "device": str(device)})
    check(logs)
    assert logs[-1]["ada_probability"] > 0 or logs[-1]["sign_real"] < 0.2
    assert next(trainer.average.parameters()).device.type == device.type


def test_chunks_recomputed_are_the_same(pictures: Tensor) -> None:
    kept, _ = trained(pictures, steps=3)
    recomputed, _ = trained(pictures, steps=3, recompute=True)
    a, b = kept.state()[0], recomputed.state()[0]
    assert all(torch.allclose(a[name], b[name], rtol=1e-4, atol=1e-6) for name in a if name.startswith("generator"))


def test_gradients_of_chunks_are_averaged(pictures: Tensor) -> None:
    """One chunk or four: the same step. (A discriminator without minibatch statistics.)"""
    results = [trained(pictures, steps=2, chunk_size=size, discriminator="residual")[1] for size in (4, 1)]
    for name in ("loss_d", "loss_g", "gradient_norm_d", "gradient_norm_g", "eikonal"):
        # The eikonal term is a mean over all points, of which chunks have different numbers.
        assert results[1][1][name] == pytest.approx(results[0][1][name], rel=0.05), name
    assert results[1][0]["loss_d"] == pytest.approx(results[0][0]["loss_d"], rel=1e-5)


def test_deterministic_runs_are_equal(pictures: Tensor) -> None:
    first, _ = trained(pictures, steps=3, deterministic=True)
    second, _ = trained(pictures, steps=3, deterministic=True)
    a, b = first.state()[0], second.state()[0]
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.are_deterministic_algorithms_enabled()


def test_two_averages_follow_at_their_own_pace(pictures: Tensor) -> None:
    trainer, _ = trained(pictures, steps=20, ema_decay=0.1, ema_decay_slow=0.999)
    now, fast, slow = (module.sdf_head for module in (trainer.generator, *trainer.averages.values()))
    assert 0 < (fast - now).norm() < (slow - now).norm()


@pytest.mark.slow
def test_fp16(pictures: Tensor) -> None:
    """An overflow is skipped and halves the scale; nothing else is skipped."""
    trainer, logs = trained(pictures, precision="fp16")
    check([log for log in logs if not log["skipped"]])
    assert sum(log["skipped"] for log in logs) < 10 and trainer.updates.loss_scale >= 1
    _, exact = trained(pictures, steps=1)
    assert logs[0]["loss_d"] == pytest.approx(exact[0]["loss_d"], rel=0.01)


def test_fp16_halves_its_scale_when_it_overflows(pictures: Tensor) -> None:
    trainer = GanJob(GanConfig(**{**TINY, "precision": "fp16"}).resolved(), TrainingData.of(pictures))
    trainer.updates.loss_scale = 2.0**60
    try:
        log = trainer.step()
    finally:
        trainer.close()
    assert log["skipped"] == 1 and trainer.updates.loss_scale == 2.0**58  # once for each network


def test_the_renderer_of_dfr_learns_from_empty_pictures() -> None:
    """As the project does: the eikonal term asks every pixel of the disc, whether a surface is there or not."""
    config = GanConfig(**{**TINY, "generator": "dfr", "renderer": "dfr"}).resolved()
    trainer = GanJob(config, TrainingData.of(torch.zeros(4, 4, 16, 16, dtype=torch.uint8)))
    try:
        with torch.no_grad():
            trainer.generator.get_submodule("film")[-1].bias.fill_(1.0)  # far from flat
            trainer.generator.get_parameter("sdf_head.bias").fill_(5.0)
        condition = trainer.generator.condition(sample_latents(config, [0, 1]))
        made = drawing.draw(trainer.generator, condition, torch.eye(3).expand(2, 3, 3), config)
        assert not made.alpha.any()
        assert len(made.gradients) > 2 * 0.7 * config.resolution**2
        eikonal_loss(made.gradients).backward()
        assert trainer.generator.get_parameter("layers.0.weight").grad.norm() > 1e-3
    finally:
        trainer.close()


def test_rendering_chunks_at_once_changes_nothing(pictures: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    config = GanConfig(**{**TINY, "batch_size": 6, "chunk_size": 2, "width": 16}).resolved()
    steps = []
    for small in (32, 0):
        monkeypatch.setattr("sdfgan.gan.state._SMALL", small)
        trainer = GanJob(config, TrainingData.of(pictures))
        assert trainer.renders_at_once == (small > 0)
        chunks = Batches(config, torch.Generator().manual_seed(1), trainer.device, trainer.ranks).fakes(
            trainer.generator, trainer.poses
        )
        render = partial(Objective.at(config, 0).render, trainer.generator)
        for one, (other,) in zip(render(chunks), map(render, [[chunk] for chunk in chunks]), strict=True):
            torch.testing.assert_close(one.images(4), other.images(4), atol=1e-6, rtol=0)
            torch.testing.assert_close(one.gradients, other.gradients, atol=1e-6, rtol=0)
            torch.testing.assert_close(one.distances, other.distances, atol=1e-6, rtol=0)
        steps.append((trainer.step(), [parameter.clone() for parameter in trainer.generator.parameters()]))
        trainer.close()
    (log, parameters), (other_log, others) = steps
    assert log == pytest.approx(other_log, rel=1e-4, abs=1e-6)
    for parameter, other in zip(parameters, others, strict=True):  # Adam's first step is its learning rate, by sign
        assert (parameter - other).abs().gt(1e-6).float().mean() < 0.01


# -------------------------------------------------------------------------------------------------- several processes

WORKER = """
import json, pathlib, sys, torch
from sdfgan.gan import GanConfig
from sdfgan.gan.data import TrainingData
from sdfgan.gan.job import GanJob
from sdfgan.training.ranks import process_group
pictures = torch.load(sys.argv[1], weights_only=True)
config = GanConfig(**json.loads(sys.argv[2])).resolved()
with process_group(torch.device("cpu")) as ranks:
    trainer = GanJob(config, TrainingData.of(pictures), ranks)
    trainer.augmented = 0.5
    if not ranks.first:
        for parameter in trainer.discriminator.parameters():
            parameter.data += 1
    ranks.broadcast(trainer.modules)
    logs = [trainer.step() for _ in range(4)]
    ranks.check_same(trainer.modules, 4)
    trainer.close()
    if ranks.first:
        print("LOGS" + json.dumps(logs))
threads = [(task / "comm").read_text().strip() for task in pathlib.Path("/proc/self/task").glob("*")]
assert not [name for name in threads if "gloo" in name], threads  # one that outlives Python aborts the process
"""


def torchrun(*arguments: str, processes: int = 2) -> str:
    """What a program prints under torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_two_processes_are_one_with_the_doubled_batch(pictures: Tensor, tmp_path: Path) -> None:
    """Each of two processes takes 2 of the 4 pictures that one takes; options that need all of a batch included."""
    options = {**TINY, "top_k_interval": 1, "ada_target": 0.6, "instance_noise": 0.1, "gan_loss": "logistic"}
    options |= {"poses": "learned"}
    _, alone = trained(pictures, steps=4, augmented=0.5, **{k: v for k, v in options.items() if k not in TINY})
    torch.save(pictures, tmp_path / "pictures.pt")
    (tmp_path / "worker.py").write_text(WORKER)
    said = torchrun(str(tmp_path / "worker.py"), str(tmp_path / "pictures.pt"), json.dumps(options))
    together = json.loads(next(line for line in said.splitlines() if line.startswith("LOGS"))[4:])
    for one, two in zip(alone, together, strict=True):
        assert one.keys() == two.keys()
        for name in one:
            assert two[name] == pytest.approx(one[name], rel=1e-3, abs=1e-5), name


@pytest.mark.slow
def test_a_run_under_torchrun_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    run, cache = tmp_path / "run", {"SDFGAN_CACHE": str(tmp_path / "cache")}
    flags = {**TINY, "dataset_size": 64, "evaluate_images": 16, "mesh_resolution": 16, "view_resolution": 16}
    flags |= {"video_frames": 2, "sample_interval": 100, "checkpoint_interval": 100, "steps": 4}
    listed = [text for name, value in flags.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    os.environ.update(cache)
    try:
        said = torchrun("-m", "sdfgan", "train-gan", "--output-dir", str(run), *listed)
        assert said.count("done: open") == 1 and "2 processes" in said
        command = [sys.executable, "-m", "sdfgan", "train-gan", "--resume", str(run), "--steps", "6"]
        subprocess.run(command, check=True, capture_output=True)
        subprocess.run([*command[:3], "train-gan", "--output-dir", str(tmp_path / "alone"), *listed], check=True)
    finally:
        del os.environ["SDFGAN_CACHE"]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 6 and summary["processes"] == 1
    assert len(list(run.glob("events.*"))) == 2
    judged = [
        [line["evaluation/swd"] for line in map(json.loads, lines) if "evaluation/swd" in line]
        for lines in ((folder / "metrics.jsonl").read_text().splitlines() for folder in (run, tmp_path / "alone"))
    ]
    assert judged[0][:2] == pytest.approx(judged[1], rel=1e-3)  # two processes judge as one does


def test_a_batch_that_processes_cannot_share() -> None:
    from sdfgan.training.ranks import Ranks

    config, data = GanConfig(**TINY).resolved(), TrainingData.of(torch.zeros(4, 4, 16, 16, dtype=torch.uint8))
    later = dataclasses.replace(config, stages=(Stage(0, {"batch_size": 6}), Stage(50, {"batch_size": 4})))
    for wrong in (config, later):
        with pytest.raises(UserError, match="--batch-size 4 must be a multiple of the 3 processes, at every stage"):
            GanJob(wrong, data, Ranks(0, 3))
    with pytest.raises(UserError, match="--chunk-size must be at least 2 with --discriminator lean"):
        GanJob(config, data, Ranks(0, 4))


def test_pictures_from_somewhere_else(pictures: Tensor) -> None:
    """A trainer takes what gives pictures by index, at the resolution in force; it learns as from a tensor."""
    source = Elsewhere(pictures)
    _, logs = trained(source, steps=2)
    assert source.asked == [(4, 16)] * 2
    assert logs == trained(pictures, steps=2)[1]
