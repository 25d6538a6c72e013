"""Configurations: defaults by device, checks, JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdfgan.errors import UserError
from sdfgan.gan.config import GanConfig


def test_defaults_for_a_cpu() -> None:
    config = GanConfig(device="cpu").resolved()
    assert (config.resolution, config.batch_size, config.width) == (32, 16, 64)
    assert GanConfig(device="cpu", batch_size=10).resolved().chunk_size == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 48}, "--resolution must be a power of two from 16, got 48"),
        ({"steps": 0}, "--steps must be positive, got 0"),
        ({"background": (255.0, 255.0, 255.0)}, "--background must be RGB in 0..1, got 255 255 255"),
        ({"omega_first": 0.0}, "--omega-first must be positive, got 0.0"),
        ({"omega_hidden": float("nan")}, "--omega-hidden must be finite, got nan"),
        ({"seed": 10**23}, "--seed must be at most 9223372036854775807"),
        ({"width": 10**8}, "--width must be at most 4096, got 100000000"),
        ({"elevation": (100.0, 200.0)}, "--elevation must be LOW HIGH in degrees within -90 and 90, got 100 200"),
        ({"azimuth": (30.0, 10.0)}, "--azimuth must be LOW HIGH in degrees, got 30 10"),
        ({"batch_size": 12, "chunk_size": 8}, "--batch-size must be a multiple of --chunk-size"),
        ({"gradient_clip": 0.0}, "--gradient-clip must be positive, got 0.0"),
        ({"gradient_clip_discriminator": -1.0}, "--gradient-clip-discriminator must be positive, got -1.0"),
        ({"eikonal_final": -0.5}, "--eikonal-final must not be negative, got -0.5"),
        (
            {"curriculum": "growing", "resolution": 64},
            "--resolution 64: --curriculum growing sets it to 32 at step 0; leave it out",
        ),
        (
            {"curriculum": "growing", "lr_generator": 2.5e-4},
            "--lr-generator 0.00025: --curriculum growing sets it to 0.0005 at step 0",
        ),
        ({"lr_generator": -1.0}, "--lr-generator must not be negative"),
        ({"fov": 200.0}, "--fov must be between 1 and 150 degrees"),
        ({"near_far": (1.0, 1.0)}, "--near-far must be NEAR FAR with 0 <= NEAR < FAR"),
        ({"generator": "dfr", "octaves": 7}, "--octaves is for --generator mlp, not dfr"),
        ({"generator": "pi-gan", "eikonal_points": 64}, "--eikonal-points is for surfaces"),
        ({"poses": "everywhere"}, "--poses must be one of uniform, .*, data; got 'everywhere'"),
        ({"inception": Path("a"), "evaluate_images": 4}, "--inception: FID needs --evaluate-images 10, got 4"),
        ({"view_resolution": 2048}, "--view-resolution must be at most 1024"),
        ({"batch_size": 11}, "--chunk-size must be at least 2 with --discriminator small"),
        ({"chunk_size": 1, "discriminator": "stylegan2"}, "--chunk-size must be at least 2 with --discriminator style"),
        ({"data": Path("a"), "evaluate_shapes": 4}, "--evaluate-shapes compares with the solids of the built-in set"),
        ({"device": "tpu"}, "--device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
        ({"resume": Path("a"), "load_dir": Path("b")}, "exclude each other"),
    ],
)
def test_bad_settings_are_named_by_their_flag(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        GanConfig(**{"device": "cpu", **options}).resolved()


def test_a_cpu_may_have_a_number() -> None:
    assert GanConfig(device="cpu:0").resolved().precision == "fp32"


def test_json_round_trip() -> None:
    config = GanConfig(device="cpu", data=Path("pictures"), background=(1.0, 0.5, 0.0)).resolved()
    assert GanConfig.from_json(config.to_json(), Path("config.json")) == config
    with pytest.raises(UserError, match=r"config.json: .*unknown field 'colour'"):
        GanConfig.from_json({"colour": 1}, Path("config.json"))
    with pytest.raises(UserError, match=r"config.json: not a GAN configuration"):
        GanConfig.from_json({**config.to_json(), "steps": "many"}, Path("config.json"))
