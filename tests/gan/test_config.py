"""Configurations: defaults by device, checks, JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sdfgan.errors import UserError
from sdfgan.gan.config import GanConfig
from sdfgan.nerf.config import NerfConfig
from sdfgan.sdf.config import SdfConfig


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
        ({"omega_first": 1e23}, "--omega-first must be at most 1000, got 1e.23"),
        ({"azimuth": (0.0, 1e23)}, "--azimuth must be LOW HIGH in degrees within -720 and 720, got 0 1e.23"),
        ({"omega_hidden": float("nan")}, "--omega-hidden must be finite, got nan"),
        ({"seed": 10**23}, "--seed must be at most 9223372036854775807"),
        ({"width": 10**8}, "--width must be at most 4096, got 100000000"),
        ({"elevation": (100.0, 200.0)}, "--elevation must be LOW HIGH in degrees within -90 and 90, got 100 200"),
        ({"azimuth": (30.0, 10.0)}, "--azimuth must be LOW HIGH in degrees within -720 and 720, got 30 10"),
        ({"batch_size": 12, "chunk_size": 8}, "--batch-size must be a multiple of --chunk-size"),
        ({"gradient_clip": 0.0}, "--gradient-clip must be positive, got 0.0"),
        ({"gradient_clip_discriminator": -1.0}, "--gradient-clip-discriminator must be positive, got -1.0"),
        ({"eikonal_final": -0.5}, "--eikonal-final must not be negative, got -0.5"),
        (
            {"curriculum": "growing", "resolution": 64},
            "--resolution 64: --curriculum growing sets it to 32 at step 0; leave it out",
        ),
        (
            {"curriculum": "growing", "learning_rate_generator": 2.5e-4},
            "--learning-rate-generator 0.00025: --curriculum growing sets it to 0.0005 at step 0",
        ),
        ({"learning_rate_generator": -1.0}, "--learning-rate-generator must not be negative"),
        ({"fov": 200.0}, "--fov must be between 1 and 150 degrees"),
        ({"near_far": (1.0, 1.0)}, "--near-far must be NEAR FAR with 0 <= NEAR < FAR"),
        ({"generator": "dfr", "octaves": 7}, "--octaves is for --generator mlp, not dfr"),
        ({"minimal_surface_weight": 1.0, "eikonal_points": 0}, "--minimal-surface-weight needs random points"),
        ({"generator": "pi-gan", "eikonal_points": 64}, "--eikonal-points is for surfaces"),
        ({"poses": "everywhere"}, "--poses must be one of uniform, .*, data; got 'everywhere'"),
        ({"inception": Path("a"), "evaluate_images": 4}, "--inception: FID needs --evaluate-images 10, got 4"),
        ({"view_resolution": 2048}, "--view-resolution must be at most 1024"),
        ({"batch_size": 11}, "--chunk-size must be at least 2 with --discriminator lean"),
        ({"chunk_size": 1, "discriminator": "stylegan2"}, "--chunk-size must be at least 2 with --discriminator style"),
        ({"data": Path("a"), "evaluate_shapes": 4}, "--evaluate-shapes compares with the shapes of a built-in set"),
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


def test_values_of_any_kind_are_refused_by_name(tmp_path: Path) -> None:
    scene = NerfConfig(device="cpu").resolved().to_json()
    for wrong in ({}, [], 3, None, "other"):
        with pytest.raises(UserError, match=r"config.json: not a train-nerf configuration of this version: model "):
            NerfConfig.from_json({**scene, "model": wrong}, Path("config.json"))
    huge = {"settings": {"elevation": [10**400, 0]}, "stages": [{"step": 0, "batch_size": 4}]}
    (tmp_path / "huge.json").write_text(json.dumps(huge))
    with pytest.raises(UserError, match="--elevation must be LOW HIGH in degrees within -90 and 90, got 1000"):
        GanConfig(device="cpu", curriculum=str(tmp_path / "huge.json")).resolved()


def test_former_names_of_fields(tmp_path: Path) -> None:
    """In the runs, models and curricula of earlier versions."""
    saved = {**GanConfig(device="cpu").resolved().to_json(), "stages": [{"step": 0, "lr_generator": 1e-4}]}
    saved["lr_discriminator"] = saved.pop("learning_rate_discriminator") / 2
    config = GanConfig.from_json(saved, Path("config.json"))
    assert config.learning_rate_discriminator == 2.5e-4 and config.at(0).learning_rate_generator == 1e-4
    del saved["shapes"]  # a run of before there was a choice
    assert GanConfig.from_json(saved, Path("config.json")).shapes == "solids"
    curriculum = tmp_path / "old.json"
    curriculum.write_text(json.dumps({"settings": {"ada_pictures": 7}, "stages": [{"step": 0, "lr_generator": 2e-4}]}))
    config = GanConfig(device="cpu", curriculum=str(curriculum)).resolved()
    assert config.ada_images == 7 and config.at(0).learning_rate_generator == 2e-4
    mesh = SdfConfig(device="cpu").resolved().to_json()
    mesh["reconstruction_res"] = mesh.pop("mesh_resolution")
    assert SdfConfig.from_json(mesh, Path("model")).mesh_resolution == 192
    scene = NerfConfig(device="cpu").resolved().to_json()
    former = {
        "lr": "learning_rate",
        "lr_final": "learning_rate_final",
        "grad_clip": "gradient_clip",
        "chunk": "chunk_size",
    }
    earlier = {old: scene.pop(new) for old, new in former.items()}
    scene = {**scene, **earlier, "octaves": None}  # which the model does not use
    assert NerfConfig.from_json(scene, Path("config.json")) == NerfConfig(device="cpu").resolved()
