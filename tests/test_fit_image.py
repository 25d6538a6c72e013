"""Inverse rendering, small: what is fitted gets nearer to what was rendered."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from polygon_files import SOLIDS, off
from sdfgan import cameras, fields, meshes
from sdfgan.cli import main
from sdfgan.errors import UserError
from sdfgan.images import VideoWriter
from sdfgan.inverse import load_target
from sdfgan.meshes import render_mesh
from sdfgan.raycast import render

RUN = {"config.json", "metrics.jsonl", "events", "summary.json", "report.html"}


def names(folder: Path) -> set[str]:
    return {"events" if path.name.startswith("events.") else path.name for path in folder.iterdir()}


def test_meshes_are_rendered_as_fields_are() -> None:
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.5)
    axes = cameras.rotate_axes((torch.tensor([0.3]), torch.tensor([1.0])))
    mesh = render_mesh(ball, axes, 48)
    field = render(sdf=fields.Sphere(0.5), axes=axes, resolution=48).rgba
    assert mesh.dtype == torch.float32 and mesh.shape == field.shape
    assert (mesh - field).abs().mean() < 3e-3 and (mesh - field).abs().max() < 0.2


def test_chamfer_distance_of_concentric_balls() -> None:
    small, large = (trimesh.creation.icosphere(subdivisions=4, radius=r) for r in (0.4, 0.5))
    assert meshes.chamfer_distance(small, large, 5000) == pytest.approx(0.1, rel=0.05)
    assert meshes.chamfer_distance(small, small, 5000) < 0.01


def test_a_bar_counts_the_share_of_the_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trimesh.creation.box((0.6, 1.0, 0.8)).export(tmp_path / "box.ply")
    few = ["--resolution", "16", "--views", "4", "--width", "16", "--mesh-resolution", "0", "--video-frames", "0"]
    arguments = [str(tmp_path / "box.ply"), "--output-dir", str(tmp_path / "out"), "--minutes", "0.06", *few]
    assert main(["fit-image", *arguments, "--steps", "1000000"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fitting, percent")]
    assert said[-1].startswith("fitting, percent 100/100") and "step " in said[-1]
    for line in said[:-1]:
        found = re.search(r"percent (\d+)/100 .* (\d+):(\d+) left", line)
        assert found is None or int(found[1]) == 0 or int(found[2]) * 60 + int(found[3]) <= 8, line
    assert names(tmp_path / "out") == {"views.png", *RUN}
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["metrics"].keys() == {"psnr"}


def test_a_mesh_is_fitted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = trimesh.creation.box((0.6, 1.0, 0.8))
    box.export(tmp_path / "box.ply")
    out = tmp_path / "out"
    arguments = [
        str(tmp_path / "box.ply"), "--output-dir", str(out), "--resolution", "32", "--views", "6", "--steps", "60",
        "--width", "32", "--views-per-step", "3", "--video-frames", "3", "--mesh-resolution", "32",
    ]  # fmt: skip
    assert main(["fit-image", *arguments]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"done: open {out}/report.html, or look at views.png, mesh.glb, summary.json there"
    assert names(out) == {"views.png", "mesh.glb", "fit.mp4", *RUN}
    assert all(path.stat().st_size > 0 for path in out.iterdir())
    summary = json.loads((out / "summary.json").read_text())
    assert summary["kind"] == "inverse" and summary["steps"] == 60 and summary["wall_seconds"] > 0
    assert summary["metrics"]["psnr"] > 18 and summary["metrics"]["chamfer_percent"] < 5
    words = shlex.split(summary["command"])
    assert words[:3] == ["sdfgan", "fit-image", str(tmp_path / "box.ply")] and words[words.index("--steps") + 1] == "60"
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30, 40, 50, 60] and lines[-1]["loss"] < lines[0]["loss"] / 2
    page = (out / "report.html").read_text()
    assert "INVERSE run, finished" in page and "views.png" in page and "mesh.glb: drag to turn it" in page
    assert "fit-image" in page and "Chamfer distance between the surfaces" in page


def test_targets_are_read_as_elsewhere_and_keep_their_colours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ball = trimesh.creation.icosphere(2)
    ball.visual.vertex_colors = [200, 100, 50, 255]
    for suffix in ("ply", "glb"):
        ball.export(tmp_path / f"a.{suffix}")
        _, model = load_target(tmp_path / f"a.{suffix}")
        colours = np.array([200, 100, 50]) / 255
        if suffix == "glb":  # in which they are in linear light
            colours = 1.055 * colours ** (1 / 2.4) - 0.055
        assert np.allclose(model.colours[..., :3], colours, atol=1e-3) and len(model.colours) == len(ball.faces)
    assert capsys.readouterr().out == ""
    solid, area, volume = SOLIDS["u"]
    (tmp_path / "u.off").write_bytes(off(solid))  # which trimesh reads with a membrane, or not at all
    target, model = load_target(tmp_path / "u.off")
    assert model.colours[..., :3].std() < 1e-6 and model.tree.vertices.norm(dim=1).max() == pytest.approx(0.85)
    assert np.linalg.norm(target.vertices, axis=1).max() == pytest.approx(0.85)
    assert "colours, if it has any, cannot be read" in capsys.readouterr().out
    assert target.volume / target.area**1.5 == pytest.approx(volume / area**1.5, rel=1e-5)
    (tmp_path / "bad.obj").write_text("v 0 0 0\nf 1 2 3\n")
    with pytest.raises(UserError, match=r"bad\.obj: .* names a vertex that does not exist"):
        load_target(tmp_path / "bad.obj")


def test_an_interrupted_fit_leaves_no_half_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writers: list[VideoWriter] = []

    def interrupted(self: VideoWriter, frame: torch.Tensor) -> None:
        if writers:
            raise KeyboardInterrupt
        writers.append(self)
        add(self, frame)

    add = VideoWriter.add
    monkeypatch.setattr(VideoWriter, "add", interrupted)
    trimesh.creation.box((0.6, 1.0, 0.8)).export(tmp_path / "box.ply")
    few = ["--resolution", "16", "--views", "4", "--width", "16", "--steps", "9", "--video-frames", "9"]
    assert main(["fit-image", str(tmp_path / "box.ply"), "--output-dir", str(tmp_path / "out"), *few]) == 130
    ffmpeg = writers[0]._ffmpeg
    assert names(tmp_path / "out") == RUN - {"summary.json", "report.html"}
    assert ffmpeg is not None and ffmpeg.poll() is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.obj"], "nothing.obj: no such file; TARGET must be a mesh"),
        (
            ["csg"],
            "csg: no such file; TARGET must be a mesh; the scene of two spheres is now examples/inv",
        ),
        (["a.obj", "--resolution", "30"], "--resolution must be a multiple of 4, got 30"),
        (["a.obj", "--lr", "0"], "--learning-rate must be positive, got 0"),
    ],
)
def test_mistakes_are_named(arguments, message, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit-image", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
