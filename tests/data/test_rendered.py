"""Sets rendered from meshes: what is written, what is held out, and how a run that was stopped goes on."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from sdfgan.cameras import Uniform
from sdfgan.cli import main
from sdfgan.data import rendered
from sdfgan.data.archives import open_archive
from sdfgan.data.layouts import open_data, read_labels, read_poses
from sdfgan.data.rendered import Views, held_out, write_set
from sdfgan.errors import UserError

VIEWS = Views(4, 24, Uniform((0.2, 0.5), (0.0, 2 * math.pi)), math.radians(25), 2, False, False, None, 7)


def shelf(root: Path) -> list[Path]:
    """Red boxes in a folder, one of them in two liveries, and blue balls in another."""
    for folder in ("boxes", "balls"):
        (root / folder).mkdir(parents=True)
    for name in ("a--0", "a--1", "b", "c"):
        box = trimesh.creation.box((1, 2, 1))
        box.visual.vertex_colors = [255, 0, 0, 255]
        box.export(root / "boxes" / f"{name}.ply")
    for name in ("d", "e"):
        ball = trimesh.creation.icosphere(3)
        ball.visual.vertex_colors = [0, 0, 255, 255]
        ball.export(root / "balls" / f"{name}.glb")
    return sorted(root.rglob("*.*"))


def write(root: Path, paths: list[Path], output: Path, views: Views = VIEWS, share: float = 0.2) -> tuple[list, list]:
    said: list[str] = []
    return write_set(root, paths, output, views, share, said.append, lambda name: None), said


def test_a_set_is_what_training_reads(tmp_path: Path) -> None:
    paths = shelf(tmp_path / "shelf")
    made, said = write(tmp_path / "shelf", paths, tmp_path / "set.zip")
    assert said == ["label 0: balls", "label 1: boxes"]
    assert [one.path.name for one in made] == ["set.zip", "set-held-out.zip"] and made[0].objects + made[1].objects == 5
    assert sum(one.images for one in made) == 24 and sorted(p.name for p in tmp_path.iterdir()) == [
        "set-held-out.zip", "set.zip", "shelf",
    ]  # fmt: skip
    found = open_data(made[0].path, 24)
    assert len(found.images) == made[0].images
    images = found.images.batch(torch.arange(len(found.images)), 24).float() / 255
    assert (images[:, 3].amax((1, 2)) == 1).all() and (images[:, 3].mean((1, 2)) - 0.4).abs().max() < 0.3
    red = images[:, 0].sum((1, 2)) > images[:, 2].sum((1, 2))
    archive = open_archive(made[0].path)
    labels, _ = read_labels(archive, "plain", made[0].path)
    assert [labels[entry.name] == 1 for entry in archive.images] == red.tolist()
    poses, notes = read_poses(archive, made[0].path)
    angles = np.degrees(np.array(list(poses.values())))
    assert len(poses) == made[0].images and notes == [] and angles[:, 0].min() > math.degrees(0.2) - 1e-3
    assert np.ptp(angles[:, 1]) > 200


def test_objects_are_held_out_whole(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}--{i}.glb" for name in "abcdefgh" for i in range(3)]
    apart = held_out(paths, 0.25, 0)
    assert len(apart) == 6 and len({rendered.object_name(path) for path in apart}) == 2
    assert held_out(paths, 0.25, 1) != apart and held_out(paths, 0.0, 0) == set()
    assert len(held_out(paths, 0.01, 0)) == 3
    with pytest.raises(UserError, match=r"--held-out 0.9: leaves none of 1 objects"):
        held_out(paths[:3], 0.9, 0)


def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = shelf(tmp_path / "shelf")
    write(tmp_path / "shelf", paths, tmp_path / "whole.zip")
    rendered_files: list[Path] = []
    render = rendered.render_views

    def stopping(path: Path, number: int, views: Views) -> tuple:
        rendered_files.append(path)
        if len(rendered_files) == 3:
            raise KeyboardInterrupt
        return render(path, number, views)

    monkeypatch.setattr(rendered, "render_views", stopping)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "shelf", paths, tmp_path / "set.zip")
    assert not (tmp_path / "set.zip").exists()
    with pytest.raises(UserError, match=r"set\.zip\.rendering: holds images of other meshes or settings"):
        write(tmp_path / "shelf", paths, tmp_path / "set.zip", VIEWS._replace(per_object=5))
    write(tmp_path / "shelf", paths, tmp_path / "set.zip")
    assert len(rendered_files) == 3 + 4, "the first two were kept"
    for name in ("{}.zip", "{}-held-out.zip"):
        assert (tmp_path / name.format("set")).read_bytes() == (tmp_path / name.format("whole")).read_bytes()


def test_files_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    paths = shelf(tmp_path / "shelf")
    (tmp_path / "shelf" / "boxes" / "bad.stl").write_bytes(b"solid nothing")
    bad = tmp_path / "shelf" / "boxes" / "bad.stl"
    made, said = write(tmp_path / "shelf", [*paths, bad], tmp_path / "set", share=0.0)
    assert len(made) == 1 and made[0].images == 24 and said[0].startswith(f"left out: {bad}: ")
    with pytest.raises(UserError, match=r"none of its 1 meshes can be read"):
        write(tmp_path / "shelf", [bad], tmp_path / "none.zip", share=0.0)
    assert not list(tmp_path.glob("none.zip*"))


def test_which_way_is_up(tmp_path: Path) -> None:
    """A tower along z, with z up, is the tower along y."""
    heights = []
    for z_up, size in ((False, (0.2, 1, 0.2)), (True, (0.2, 0.2, 1))):
        trimesh.creation.box(size).export(tmp_path / "tower.ply")
        images, _, _ = rendered.render_views(tmp_path / "tower.ply", 0, VIEWS._replace(z_up=z_up))
        heights.append((images[..., 3] > 0).any(2).sum(1))
        assert ((images[..., 3] > 0).any(2).sum(1) > 2 * (images[..., 3] > 0).any(1).sum(1)).all()
    assert np.abs(heights[0] - heights[1]).max() <= 1


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shelf(tmp_path / "shelf")
    arguments = [str(tmp_path / "shelf"), str(tmp_path / "set.zip"), "--views", "2", "--resolution", "16"]
    assert main(["dataset", "render", *arguments, "--background", "1", "1", "1", "--held-out", "0.2"]) == 0
    said = capsys.readouterr().out
    assert f"objects to {tmp_path / 'set.zip'}" in said and f"train-gan --data {tmp_path / 'set.zip'}" in said
    images = open_data(tmp_path / "set.zip", 16).images.batch(torch.arange(4), 16)
    assert (images[:, 3] == 255).all() and (images[:, :3, 0, 0] == 255).all()
    for wrong, message in (
        ([arguments[0], str(tmp_path / "set.zip")], "set.zip: exists; name a new"),
        ([str(tmp_path / "nothing"), str(tmp_path / "a.zip")], "nothing: no such file or folder"),
        ([str(tmp_path), str(tmp_path / "a.rar")], "a.rar: must be a .zip, a .tar or a folder"),
        ([arguments[0], str(tmp_path / "a.zip"), "--views", "0"], "--views must be positive, got 0"),
    ):
        assert main(["dataset", "render", *wrong]) == 2
        assert message in capsys.readouterr().err
