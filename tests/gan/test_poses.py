"""Poses that are learned: the histogram, how it follows verdicts, and runs that learn it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor

from sdfgan.cameras import rotate_axes
from sdfgan.cli import main
from sdfgan.data.convert import encode, image_name, writer
from sdfgan.data.shapes import render_shapes
from sdfgan.errors import UserError
from sdfgan.gan import GanConfig, job, train
from sdfgan.gan.data import TrainingData
from sdfgan.gan.job import GanJob
from sdfgan.gan.poses import _ENTROPY, _RATE, AZIMUTH_BINS, ELEVATION_BINS, PoseHistogram, PoseLearner
from sdfgan.training.checkpoint import load_checkpoint, resolve_checkpoint
from tests.gan.test_train import TINY

ALL = (math.radians(0), math.radians(60)), (0.0, 2 * math.pi)
LEARNED = {**TINY, "poses": "learned", "elevation": (0.0, 60.0), "evaluate_images": 0}


def skewed(turn: int = 0) -> Tensor:
    """Shares [E, A] around one direction, low above the horizon."""
    place = torch.arange(AZIMUTH_BINS) * 2 * math.pi / AZIMUTH_BINS
    shares = torch.exp(-torch.arange(ELEVATION_BINS) / 1.5)[:, None] * torch.exp(2 * place.cos())
    return (shares / shares.sum()).roll(turn, 1)


def poses(histogram: PoseHistogram, n: int, seed: int = 0) -> Tensor:
    return torch.stack(histogram.sample(n, torch.Generator().manual_seed(seed)), 1)


def test_samples_fall_into_the_bins_by_their_shares() -> None:
    histogram = PoseHistogram(*ALL, skewed())
    elevation, azimuth = poses(histogram, 200_000).unbind(1)
    found = torch.bincount(histogram.bins(elevation, azimuth), minlength=192).view(8, 24) / 200_000
    assert (found - histogram.shares).abs().max() < 0.002
    assert (elevation >= 0).all() and (elevation <= ALL[0][1]).all()
    assert (azimuth >= 0).all() and (azimuth <= ALL[1][1]).all()
    # Within a bin they are uniform.
    first = elevation[elevation < math.radians(7.5)] / math.radians(7.5)
    assert first.mean() == pytest.approx(0.5, abs=0.01) and first.var() == pytest.approx(1 / 12, abs=0.002)


def test_bins_at_the_ends_of_a_range() -> None:
    """A range across azimuth 0, azimuths a turn away, and poses outside, which count to the nearest bin."""
    histogram = PoseHistogram((0.0, 1.0), (-0.6, 0.6), torch.full((8, 24), 1 / 192))
    azimuths = torch.tensor([-0.59, 0.59, 2 * math.pi - 0.59, 0.7, 2 * math.pi - 0.7])
    assert histogram.bins(torch.full((5,), 0.01), azimuths).tolist() == [0, 23, 0, 23, 0]
    assert histogram.bins(torch.tensor([-0.5, 0.5, 1.5]), torch.full((3,), -0.6)).tolist() == [0, 96, 168]


def test_divergence_is_of_the_best_turn() -> None:
    histogram = PoseHistogram(*ALL, skewed(turn=5))
    true = poses(PoseHistogram(*ALL, skewed()), 100_000)
    same = histogram.compared(true)
    assert same["pose_turn"] == 75 and same["pose_kl"] < 0.002 and same["pose_js"] < 0.001
    even = PoseHistogram(*ALL, torch.full((8, 24), 1 / 192)).compared(true)
    exact = (skewed().double() * (skewed().double() * 192).log()).sum().item()
    assert even["pose_kl"] == pytest.approx(exact, abs=0.02)
    # Of independent angles the divergence is the sum of both.
    assert even["pose_kl_elevation"] + even["pose_kl_azimuth"] == pytest.approx(even["pose_kl"], abs=0.02)
    part = PoseHistogram(ALL[0], (-1.0, 1.0), skewed()).compared(true)
    assert part["pose_turn"] == 0, "the ends of a range say where the front is"
    turned = torch.remainder(true[:, 1] + math.pi, 2 * math.pi) - math.pi
    assert (
        part["pose_outside"] == pytest.approx((turned.abs() > 1).double().mean().item(), abs=1e-4)
        and not same["pose_outside"]
    )


def test_a_step_is_the_natural_gradient_of_mean_logit_and_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without smoothing, memory and doubt, with one fake from the middle of each bin: float64 against autograd."""
    monkeypatch.setattr("sdfgan.gan.poses._MEMORY", 0.0)
    monkeypatch.setattr("sdfgan.gan.poses._DOUBT", 0.0)
    monkeypatch.setattr("sdfgan.gan.poses._RATE_ELEVATION", 0.0)  # which is faster along one direction
    monkeypatch.setattr("sdfgan.gan.poses._near", lambda count, cyclic, like: torch.eye(count, dtype=like.dtype))
    learner = PoseLearner(*ALL).double()
    learner.shares.copy_((skewed() + 0.001) / (skewed() + 0.001).sum())
    elevation = ((torch.arange(8).double() + 0.5) / 8 * ALL[0][1]).repeat_interleave(24)
    azimuth = ((torch.arange(24).double() + 0.5) / 24 * 2 * math.pi).repeat(8)
    logits = torch.randn(192, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logs = learner.shares.log().flatten().requires_grad_()
    shares = logs.softmax(0)
    aim = (shares * logits).sum() / logits.std(unbiased=False) - _ENTROPY * (shares * shares.log()).sum()
    (gradient,) = torch.autograd.grad(aim, logs)
    learner.learn(logits, rotate_axes((elevation, azimuth)))
    wanted = (logs + _RATE * gradient / shares).softmax(0).detach()
    assert torch.allclose(learner.shares.flatten(), wanted, rtol=1e-9)


def test_it_recovers_skewed_poses_from_noisy_verdicts() -> None:
    """Without a GAN: verdicts are a third of log p_real - log p_fake of the bins, with as much noise."""
    learner, random, true = PoseLearner(*ALL), torch.Generator().manual_seed(0), skewed()
    for step in range(1200):
        histogram = learner.histogram
        elevation, azimuth = histogram.sample(16, random)
        logits = 0.3 * (true / histogram.shares).log().flatten()[histogram.bins(elevation, azimuth)]
        learner.learn(
            logits + 0.3 * torch.randn(16, generator=random), rotate_axes((elevation, azimuth)), 2 - step / 600
        )
    angles = poses(PoseHistogram(*ALL, true), 100_000)
    before, after = (one.histogram.compared(angles)["pose_kl"] for one in (PoseLearner(*ALL), learner))
    assert before > 0.9 and after < 0.1


def test_no_view_is_lost_for_ever_and_bad_verdicts_change_nothing() -> None:
    learner = PoseLearner(*ALL)
    elevation, azimuth = torch.rand(64) * ALL[0][1], torch.rand(64) * 2 * math.pi
    axes = rotate_axes((elevation, azimuth))
    for _ in range(1000):
        learner.learn(azimuth.cos(), axes)
    assert learner.shares.min() >= 0.015 / 192 and learner.shares.sum() == pytest.approx(1)
    assert learner.spread < 0.5
    before = learner.shares.clone()
    learner.learn(torch.full((64,), math.nan), axes)
    assert torch.equal(learner.shares, before)
    learner.learn(torch.ones(64), axes)  # as when the discriminator says the same of all
    assert learner.shares.isfinite().all()


def test_a_run_learns_poses_continues_exactly_and_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SDFGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(job.Report, "final_images", lambda self: {"grid": None, "turntable": None, "meshes": []})
    images, angles = render_shapes(64, 16).images, poses(PoseHistogram(*ALL, skewed()), 64)
    with writer(tmp_path / "set.zip") as write:
        for index, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
            write(image_name(index), encode(image))
        named = {image_name(index): pose.rad2deg().tolist() for index, pose in enumerate(angles)}
        write("poses.json", json.dumps(named).encode())
    options = {**LEARNED, "data": tmp_path / "set.zip", "steps": 4, "checkpoint_interval": 2}
    train(GanConfig(output_dir=tmp_path / "straight", **options))
    assert "poses are learned within --elevation 0 60 and --azimuth 0 360" in capsys.readouterr().out
    halted = tmp_path / "halted"
    shutil.copytree(tmp_path / "straight", halted)
    shutil.rmtree(halted / "checkpoints" / "step-0000004")
    train(GanConfig(device="cpu", resume=halted))
    one, two = (load_checkpoint(resolve_checkpoint(tmp_path / name))[0] for name in ("straight", "halted"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert (one["poses.shares"] != 1 / 192).any()
    assert "azimuth" in "".join(ElementTree.parse(tmp_path / "straight" / "poses.svg").getroot().itertext())
    assert "data:image/svg+xml;base64" in (tmp_path / "straight" / "report.html").read_text()
    main(["evaluate", str(tmp_path / "straight"), "--real", str(tmp_path / "set.zip"), "--images", "32",
          "--poses", str(tmp_path / "set.zip")])  # fmt: skip
    assert "the true poses are these and their mirror images" in capsys.readouterr().out
    scores = json.loads((tmp_path / "straight" / "evaluation-0000004.json").read_text())
    assert 0 < scores["pose_js"] < scores["pose_kl"] < 3


def test_what_cannot_be_learned_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDFGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(job.Report, "final_images", lambda self: {"grid": None, "turntable": None, "meshes": []})
    with pytest.raises(UserError, match="--poses learned: --elevation must be a range to learn within, got 20 20"):
        GanConfig(**{**LEARNED, "elevation": (20.0, 20.0)}).resolved()
    with pytest.raises(UserError, match="--poses learned: --azimuth must be at most a full turn, got -10 355"):
        GanConfig(**{**LEARNED, "azimuth": (-10.0, 355.0)}).resolved()
    for share, said in ((0.0, "be positive"), (0.01, "add up to 1")):
        with pytest.raises(UserError, match=f"tensor poses.shares must {said}"):
            PoseLearner(*ALL).load(
                {"poses.shares": torch.full((8, 24), share), "poses.sums": torch.zeros(2, 8, 24)},
                tmp_path / "checkpoint",
            )
    train(GanConfig(output_dir=tmp_path / "run", **{**TINY, "steps": 1, "evaluate_images": 0}))
    with pytest.raises(UserError, match=r"--poses compares poses that were learned \(.*\), not uniform"):
        from sdfgan.cli import evaluate
        from sdfgan.cli.flags import EvaluateConfig

        evaluate.run(EvaluateConfig(tmp_path / "run", poses=tmp_path))


def test_threads_and_recomputing_change_no_poses() -> None:
    images = render_shapes(32, 16).images
    found, before = [], torch.get_num_threads()
    for threads, recompute in ((1, False), (2, False), (1, True)):
        torch.set_num_threads(threads)
        trainer = GanJob(GanConfig(**LEARNED, steps=3, recompute=recompute).resolved(), TrainingData.of(images))
        for _ in range(3):
            trainer.step()
        trainer.close()
        assert trainer.pose_learner is not None
        found.append(trainer.pose_learner.shares)
    torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.allclose(found[0], found[2], rtol=1e-4)
