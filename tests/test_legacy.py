"""The command lines of the two older projects, as they print them, are understood."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from sdfgan.cli import main
from sdfgan.cli.commands import COMMANDS, Command
from sdfgan.compat.flags import OLD_FLAGS, translate
from sdfgan.errors import UserError


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The configurations that commands would have run with."""
    configs: list[Any] = []
    monkeypatch.setattr(Command, "load_function", lambda self: configs.append)
    return configs


@pytest.mark.parametrize(
    ("line", "expected", "said"),
    [
        (
            "train-gan --output_dir=out --load_dir=from --curriculum=SPATIALSIRENBASELINE --port=12355",
            {"output_dir": Path("out"), "load_dir": Path("from"), "curriculum": "SPATIALSIRENBASELINE"},
            ["--port is obsolete: torchrun chooses a port (--master-port)"],
        ),
        ("train-gan --output_dir out --port 12355", {"output_dir": Path("out")}, ["--port"]),
        (
            "train-gan -d pictures --no-log",
            {"data": Path("pictures"), "dry_run": True},
            ["-d is now --data", "--no-log"],
        ),
        (
            "train-gan --sample_interval 7 --eval_freq 9",
            {"sample_interval": 7, "evaluate_interval": 9},
            ["--eval_freq"],
        ),
        (
            "train-nerf -s -t -u --grad_clip -0.01 --dataset_name helmet --render_depth --render_normal --prop_normal",
            {
                "precision": "amp",
                "model": "ref-nerf",
                "srgb": True,
                "gradient_clip": -0.01,
                "dataset_name": "helmet",
                "render_depth": True,
                "render_normal": True,
                "prop_normal": True,
            },
            ["-s is now --precision amp", "-t is now --model ref-nerf", "-u is now --srgb"],
        ),
        (
            "train-nerf -w -s --opt_level O1 --dataset_name ship --img_scale 0.5",
            {"background": "white", "precision": "amp", "dataset_name": "ship", "image_scale": 0.5},
            ["-w is now --background white", "-s", "--opt_level is obsolete", "--img_scale is now --image-scale"],
        ),
        (
            "evaluate RUN --real_image_dir reals --num_images 8000",
            {"run": Path("RUN"), "real": Path("reals"), "images": 8000},
            ["--real_image_dir is now --real", "--num_images is now --images"],
        ),
        (
            "render RUN --seeds 0 1 2 3 --lock_view_dependence --image_size 512 --num_steps 36 --psi 0.7",
            {
                "seeds": ("0", "1", "2", "3"),
                "resolution": 512,
                "psi": 0.7,
                "lock_view_dependence": True,
                "samples": 36,
            },
            ["--image_size", "--num_steps is now --samples"],
        ),
        (
            "render RUN --seeds 0 --trajectory orbit --num_frames 36 --ray_step_multiplier 2 --depth_map",
            {"mode": "orbit", "frames": 36, "show": "depth", "ray_step_multiplier": 2.0},
            ["--trajectory is now --mode", "--num_frames", "--depth_map"],
        ),
        (
            "render RUN --trajectory orbit --output_dir vids",
            {"mode": "orbit", "output": Path("vids/orbit.mp4")},
            ["--trajectory is now --mode", "--output_dir is now --output"],
        ),
        (
            "render RUN --output_dir=vids --trajectory=front",
            {"mode": "front", "output": Path("vids/front.mp4")},
            ["--output_dir is now --output", "--trajectory is now --mode"],
        ),
        (
            "render RUN --output_dir views",
            {"mode": "images", "output": Path("views")},
            ["--output_dir is now --mode images --output"],
        ),
        (
            "interpolate RUN --seeds 0 1 --psi 0.7 --num_frames=36 --output_dir vids",
            {"frames": 36, "output": Path("vids/interpolation.mp4")},
            ["--num_frames", "--output_dir"],
        ),
        (
            "train-gan -d pictures -r runs -v chairs",
            {"data": Path("pictures"), "output_dir": None},
            [
                "-d is now --data",
                "-r is obsolete: --output-dir is the folder of the run",
                "-v is obsolete",
            ],
        ),
        (
            "evaluate RUN --dataset CelebA --img_size 128 --num_imgs 8000",
            {"images": 8000, "real": None},
            ["--dataset is obsolete: --real", "--img_size is obsolete", "--num_imgs is now --images"],
        ),
        (
            "extract-mesh RUN -v chairs -e 40 -r 64",
            {"run": Path("RUN"), "mesh_resolution": 64},
            ["-v is obsolete: RUN, the first", "-e is obsolete", "-r is now --mesh-resolution"],
        ),
        (
            "dataset convert a b.zip -d a -o b --random-count 1",
            {"data": Path("a"), "output": Path("b.zip"), "views_per_object": 1},
            ["-d is obsolete: DATA and OUTPUT", "-o is obsolete", "--random-count is now"],
        ),
        (
            "invert RUN a.png --lock_view_dependence --num_steps 24 --ray_step_multiplier 2",
            {"lock_view_dependence": True, "samples": 24, "ray_step_multiplier": 2.0},
            ["--num_steps is now --samples"],
        ),
        (
            "extract-mesh RUN --seed 0 --cube_size 0.3 --voxel_resolution 256",
            {"seeds": ("0",), "mesh_resolution": 256},
            ["--seed is now --seeds", "--cube_size is obsolete", "--voxel_resolution"],
        ),
        (
            "invert RUN a.png --seed 3 --image_size 128 --num_frames 64 --max_batch_size 1000",
            {"seed": 3, "resolution": 128, "frames": 64},
            ["--image_size", "--num_frames", "--max_batch_size is obsolete"],
        ),
    ],
)
def test_lines_of_old(
    line: str, expected: dict[str, Any], said: list[str], parsed: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 0
    (config,) = parsed
    assert {name: getattr(config, name) for name in expected} == expected
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(said) and all(part in text for part, text in zip(said, lines, strict=True))


def test_every_flag_of_old_leads_to_one_of_today() -> None:
    for name, flags in OLD_FLAGS.items():
        commands = [command for key, command in COMMANDS.items() if key.split()[0] == name]
        fields = [field for command in commands for field in dataclasses.fields(command.load_config())]
        today = {f"--{field.name.replace('_', '-')}" for field in fields}
        for flag, old in flags.items():
            assert flag not in today, f"{name} {flag} works as it is"
            assert {part for part in old.now if part.startswith("--")} <= today, f"{name} {flag}"
            assert old.note


def test_values_may_be_missing() -> None:
    assert translate("train-gan", ["--port"]) == ([], ["--port " + OLD_FLAGS["train-gan"]["--port"].note])
    assert translate("info", ["--port"]) == (["--port"], [])
    note = "--decay-rate " + OLD_FLAGS["train-nerf"]["--decay-rate"].note
    assert translate("train-nerf", ["--decay-rate", "--data", "lego"]) == (["--data", "lego"], [note])
    for arguments in (["-d"], ["-d="], ["-d", "--steps", "3"]):  # an empty path would be this folder
        with pytest.raises(UserError, match="-d, which is now --data, needs a value"):
            translate("train-gan", arguments)
