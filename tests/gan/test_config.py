"""Configurations: defaults by device, checks, JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdfgan.errors import UserError
from sdfgan.gan.config import GanConfig


def test_defaults_for_a_cpu() -> None:
    config = GanConfig(device="cpu").resolved()
    assert (config.resolution, config.batch_size, config.width) == (32, 16, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 48}, "--resolution must be a power of two from 16, got 48"),
        ({"steps": 0}, "--steps must be at least 1, got 0"),
        ({"batch_size": 12, "chunk_size": 8}, "--batch-size must be a multiple of --chunk-size"),
        ({"lr_generator": -1.0}, "--lr-generator must not be negative"),
        ({"fov": 200.0}, "--fov must be between 1 and 150 degrees"),
        ({"device": "tpu"}, "--device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
        ({"resume": Path("a"), "load_dir": Path("b")}, "exclude each other"),
    ],
)
def test_bad_settings_are_named_by_their_flag(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        GanConfig(**{"device": "cpu", **options}).resolved()


def test_json_round_trip() -> None:
    config = GanConfig(device="cpu", data=Path("pictures"), background=(1.0, 0.5, 0.0)).resolved()
    assert GanConfig.from_json(config.to_json(), Path("config.json")) == config
    with pytest.raises(UserError, match=r"config.json: .*unknown field 'colour'"):
        GanConfig.from_json({"colour": 1}, Path("config.json"))
    with pytest.raises(UserError, match=r"config.json: not a GAN configuration"):
        GanConfig.from_json({**config.to_json(), "steps": "many"}, Path("config.json"))
