"""Curricula: what their files say is in force at its step, trains, and is refused where it makes no sense."""

from __future__ import annotations

import json
import shlex
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdfgan.cli.parse import parse
from sdfgan.data.shapes import render_shapes
from sdfgan.errors import UserError
from sdfgan.gan import GanConfig, drawing
from sdfgan.gan.config import DEFAULTS
from sdfgan.gan.curricula import Stage, curricula, load_curriculum
from sdfgan.gan.data import TrainingData
from sdfgan.gan.job import GanJob
from sdfgan.gan.models import sample_latents
from sdfgan.training.checkpoint import Saved
from sdfgan.training.config import command_line
from sdfgan.training.run import changed_on_resume
from tiny_gan import TINY, check, fit_quickly


def shrunk(name: str, each: int) -> GanConfig:
    """A curriculum of the package, with small networks, small pictures and stages of so many steps each."""
    curriculum = load_curriculum(name, GanConfig())
    settings = {field: value for field, value in curriculum.settings.items() if field not in TINY}
    largest = max((s.changes.get("resolution", 0) for s in curriculum.stages), default=0)
    stages = []
    for index, stage in enumerate(curriculum.stages):
        changes = dict(stage.changes)
        if "resolution" in changes:
            changes["resolution"] = max(16, changes["resolution"] * 32 // max(largest, 32))
        changes["batch_size"] = 4
        changes["chunk_size"] = 2
        stages.append(Stage(each * index, changes))
    options = {**TINY, **settings, "fade_steps": 10 if settings.get("fade_steps") else 0, "data_layout": "auto"}
    return GanConfig(**{**options, "batch_size": 4, "chunk_size": 2, "stages": tuple(stages)}).resolved()


@pytest.mark.parametrize("each", [1, pytest.param(15, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", curricula())
def test_curricula(name: str, each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdfgan.fields.dfr.DfrSDF.precondition", fit_quickly)
    config = shrunk(name, each)
    trainer = GanJob(config, TrainingData.of(render_shapes(32, max(config.resolutions)).images))
    trainer.precondition()
    try:
        logs = [trainer.step() for _ in range(4 * each)]  # past the end of three stages
    finally:
        trainer.close()
    check(logs)


@pytest.mark.parametrize("name", curricula())
def test_curricula_as_they_are(name: str) -> None:
    """They resolve and pass every check, and what they say is in force at its step."""
    config = GanConfig(device="cpu", curriculum=name.upper()).resolved()
    curriculum = load_curriculum(name, config)
    assert curriculum.about
    for field, value in curriculum.settings.items():
        if field not in {"batch_size", "resolution"}:
            assert getattr(config, field) == value, field
    for stage in curriculum.stages:
        now = config.at(stage.step)
        assert all(getattr(now, field) == value for field, value in stage.changes.items())
    assert config.at(10**9) == config.at(max([s.step for s in curriculum.stages], default=0))
    assert GanConfig.from_json(json.loads(json.dumps(config.to_json())), Path("x")) == config


def test_values_of_the_reference_systems() -> None:
    carla = GanConfig(device="cpu", curriculum="carla").resolved()
    stages = [(0, 32, 30, 4e-5, 4e-4), (10_000, 64, 14, 2e-5, 2e-4), (55_000, 128, 10, 1e-5, 1e-4)]
    for step, resolution, batch, lr_g, lr_d in stages:
        now = carla.at(step)
        assert (now.resolution, now.batch_size, now.learning_rate_generator, now.learning_rate_discriminator) == (
            resolution,
            batch,
            lr_g,
            lr_d,
        )
        before = carla.at(step - 1)
        assert step == 0 or before.resolution == resolution // 2
    # pi-GAN's R1 weight is for pictures in -1..1, whose gradients are half of those in 0..1.
    assert carla.r1_gamma == 10 / 4
    celeba = GanConfig(device="cpu", curriculum="SPATIALSIRENBASELINE").resolved()
    assert (celeba.at(0).batch_size, celeba.pose_weight, celeba.top_k_interval) == (56, 15, 2000)


def test_flags_go_before_a_curriculum() -> None:
    config = GanConfig(device="cpu", curriculum="carla", fov=40.0).resolved()
    assert config.fov == 40 and config.discriminator == "progressive" and DEFAULTS["fov"] == 25


STAGES = (Stage(0, {"resolution": 16}), Stage(4, {"resolution": 32, "batch_size": 4, "learning_rate_generator": 1e-4}))


def test_a_stage_change_and_resuming_across_it(pictures: Tensor) -> None:
    config = GanConfig(**{**TINY, "discriminator": "progressive", "fade_steps": 3, "stages": STAGES}).resolved()
    assert config.at(3).resolution == 16 and config.at(4).resolution == 32 and config.stage_start(7) == 4
    straight, halted, resumed = (GanJob(config, TrainingData.of(pictures)) for _ in range(3))
    try:
        logs = [straight.step() for _ in range(8)]
        assert logs[3]["learning_rate"] == 5e-4 and logs[4]["learning_rate"] == 1e-4
        for _ in range(5):
            halted.step()
        # Adam counts the steps of the second resolution's layers from where they began.
        later, always = (halted.optimizer_d.state[halted.discriminator.stems[side].weight] for side in ("32", "16"))
        assert (later["step"], always["step"]) == (1, 5)
        tensors, values = halted.state()
        resumed.load_state(Saved(Path("here"), tensors, {**values, "step": 5}))
        for _ in range(3):
            resumed.step()
        latents = sample_latents(config, [0, 1])
        axes = torch.eye(3).expand(2, 3, 3)
        now = straight.config.at(straight.steps_done)
        assert drawing.draw(straight.average, straight.average.condition(latents), axes, now).rgb.shape[-1] == 32
    finally:
        for trainer in (resumed, halted, straight):
            trainer.close()
    a, b = straight.state()[0], resumed.state()[0]
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "expected"),
        ('{"settings": {"colour": 1}}', "unknown setting 'colour'"),
        ('{"settings": {"output_dir": "x"}}', "unknown setting 'output_dir'"),
        ('{"settings": {"fov": "wide"}}', 'fov must be float, got "wide"'),
        ('{"settings": {"discriminator": "none"}}', "discriminator must be one of lean, small, "),
        ('{"settings": {"elevation": [1]}}', "elevation must be"),
        ('{"stages": [{"resolution": 16}]}', "a stage must be"),
        ('{"stages": [{"step": 0, "width": 16}]}', "a stage cannot change 'width'"),
        ('{"stages": [{"step": 0, "resolution": 16.5}]}', "resolution must be int"),
        ('{"stages": [{"step": 5}]}', "must begin at step 0"),
        ('{"stages": [{"step": 0}, {"step": 0}]}', "rising steps"),
        ('{"stages": [{"step": 0, "resolution": 32}, {"step": 9, "resolution": 48}]}', "power of two"),
        ('{"stages": [{"step": 0, "resolution": 32}, {"step": 9, "resolution": 64}]}', "takes one resolution"),
    ],
)
def test_bad_curricula(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        GanConfig(device="cpu", curriculum=str(path)).resolved()
    with pytest.raises(UserError, match="--curriculum must be one of aircraft, carla, cats, celeba"):
        GanConfig(device="cpu", curriculum="unknown").resolved()


def test_a_default_that_is_given_counts_against_a_curriculum() -> None:
    """By name, on the command line; and the command of the run says it again."""

    def settings(*flags: str) -> tuple[GanConfig, str]:
        config = parse(
            "sdfgan train-gan", GanConfig, ["--device", "cpu", "--curriculum", "aircraft", *flags]
        ).resolved()
        return config, command_line("train-gan", config)

    config, _ = settings()
    assert (config.discriminator, config.discriminator_channels) == ("small", 16)
    assert DEFAULTS["discriminator"] == "lean" and DEFAULTS["discriminator_channels"] == 32
    config, command = settings("--discriminator", "lean", "--discriminator-channels=32")
    assert (config.discriminator, config.discriminator_channels, config.width) == ("lean", 32, 96)
    again = parse("sdfgan train-gan", GanConfig, shlex.split(command)[2:]).resolved()
    assert again == config and "--discriminator lean" in command
    config, command = settings("--symmetric-from", "None")
    assert config.symmetric_from is None and "--symmetric-from None" in command
    assert parse("sdfgan train-gan", GanConfig, shlex.split(command)[2:]).resolved() == config
    assert settings("--generator", "mlp")[0].symmetric_from is None  # which it has no use for


def test_a_default_that_is_given_is_compared_with_the_run() -> None:
    before = GanConfig(device="cpu", discriminator="small", steps=9).resolved()
    for flags, differs in (([], False), (["--discriminator", "small"], False), (["--discriminator", "lean"], True)):
        given = parse("sdfgan train-gan", GanConfig, ["--resume", "run", *flags])
        with pytest.raises(UserError, match="lean differs from the run's small") if differs else nullcontext():
            assert changed_on_resume(given, before, ("resume",), Path("run")) == {"resume": Path("run")}
