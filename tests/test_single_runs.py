"""`render` and `extract-mesh` of runs that have learned one thing: a mesh by train-sdf, a scene by train-nerf."""

from __future__ import annotations

from pathlib import Path

import imageio
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

import posed
from sdfgan.cli import main
from sdfgan.training.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def solid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdf")
    box = trimesh.creation.box((2.0, 4.0, 3.0))
    box.apply_translation((10.0, 0.0, 0.0))
    box.export(folder / "box.ply")
    few = "--preset low --num-points 20000 --epochs 4 --mesh-resolution 0 --no-metrics --device cpu"
    assert main(["train-sdf", str(folder / "box.ply"), "--output-dir", str(folder / "run"), *few.split()]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nerf")
    posed.blender_scene(folder / "ball")
    few = "--device cpu --steps 100 --hash-table 12 --hash-finest 32 --hash-levels 4 --grid-resolution 16 --rays 512 "
    few += "--march-steps 48 --samples 6000 --chunk-size 256 --width 16 --warmup-steps 5 --learning-rate 5e-2 "
    few += "--video-frames 0 --mesh-resolution 0 --evaluate-interval 0"
    run = folder / "run"
    assert main(["train-nerf", "--data", str(folder / "ball"), "--output-dir", str(run), *few.split()]) == 0
    return run


@pytest.fixture(params=["solid", "scene"])
def run(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def test_images_and_videos(run: Path, tmp_path: Path) -> None:
    small = ["--resolution", "32", "--device", "cpu", "--views", "3", "--frames", "4"]
    for mode, show in (("grid", "colour"), ("seeds", "colour"), ("grid", "depth"), ("grid", "normals")):
        file = tmp_path / f"{mode}-{show}.png"
        assert main(["render", str(run), "--mode", mode, "--show", show, "--output", str(file), *small]) == 0
        image = np.asarray(Image.open(file).convert("RGB"))
        assert image.shape == (32, 32 if mode == "seeds" else 96, 3)
        assert image.std((0, 1)).max() > 20, (mode, show)  # something is seen
    assert main(["render", str(run), "--mode", "images", "--output", str(tmp_path / "all"), *small]) == 0
    assert len(list((tmp_path / "all").iterdir())) == (1 if "sdf" in str(run) else 3)
    video = tmp_path / "turn.gif"
    assert main(["render", str(run), "--mode", "turntable", "--output", str(video), *small]) == 0
    assert len(imageio.mimread(video)) == 4


def test_meshes_lie_where_the_file_says(run: Path, tmp_path: Path) -> None:
    few = ["--resolution", "32", "--device", "cpu", "--output-dir", str(tmp_path)]
    assert main(["extract-mesh", str(run), "--format", "ply", *few]) == 0
    mesh = trimesh.load(tmp_path / "mesh.ply", force="mesh")
    if "sdf" in str(run):
        assert mesh.centroid == pytest.approx([10, 0, 0], abs=0.3) and mesh.extents == pytest.approx([2, 4, 3], abs=0.5)
    else:
        assert mesh.volume > 0 and abs(mesh.bounds).max() < 1.6
    assert main(["extract-mesh", str(run), "--format", "mrc", *few]) == 0
    assert (tmp_path / "mesh.mrc").stat().st_size > 32**3


def test_a_scene_that_was_moved(scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = scene.with_name("ball"), tmp_path / "elsewhere"
    before.rename(after)
    try:
        small = ["--device", "cpu", "--resolution", "16"]
        assert main(["extract-mesh", str(scene), *small]) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert f"{before}: the scene of {scene} is not there: --data says where it is now" in said
        mesh = ["extract-mesh", str(scene), "--data", str(after), "--output-dir", str(tmp_path / "meshes"), *small]
        assert main(mesh) == 0 and (tmp_path / "meshes" / "mesh.glb").is_file()
        image = ["render", str(scene), "--data", str(after), "--mode", "seeds", "--output", str(tmp_path / "a.png")]
        assert main([*image, *small]) == 0
    finally:
        after.rename(before)


def test_flags_without_effect_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = "train-sdf" if "sdf" in str(run) else "train-nerf"
    for flag, value in (("--seeds", "3"), ("--psi", "0.5"), ("--weights", "raw"), ("--samples", "9")):
        assert main(["render", str(run), flag, value]) == 2
        assert f"{flag}: has no effect on {run}, a run of {trainer}" in capsys.readouterr().err
    if trainer == "train-sdf":
        for command in ("render", "extract-mesh"):
            assert main([command, str(run), "--data", "."]) == 2
            assert f"--data: has no effect on {run}, a run of train-sdf" in capsys.readouterr().err
    if trainer == "train-nerf":
        for flag in ("--elevation", "--azimuth"):
            assert main(["render", str(run), flag, "9"]) == 2
            assert f"{flag}: has no effect on {run}" in capsys.readouterr().err


def test_runs_that_cannot_be_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(command: str) -> str:
        assert main([command, str(tmp_path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "expected a run folder with checkpoints/" in refused("render")
    checkpoint = save_checkpoint(tmp_path, 3, {"x": torch.zeros(1)}, {"kind": "sdf"})
    assert f"{tmp_path}: has no model.safetensors yet; sdfgan train-sdf --resume {tmp_path}" in refused("render")
    save_checkpoint(tmp_path, 4, {"x": torch.zeros(1)}, {"kind": "inverse"})
    assert "a run of kind 'inverse', expected one of train-gan, train-sdf or train-nerf" in refused("extract-mesh")
    (checkpoint.with_name("step-0000004") / "state.json").write_text("{")
    assert "not a readable checkpoint" in refused("extract-mesh")
