"""Posed pictures from COLMAP models: poses, lenses, layouts, and what is wrong with a model in one line."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import posed
from sdfgan.data.scenes import load_scene
from sdfgan.errors import UserError

FOCAL = posed.SIDE / 2 / math.tan(posed.FOV / 2)
FOCAL = posed.SIDE / 2 / math.tan(posed.FOV / 2)


def quaternion(rotation: Tensor) -> tuple[float, ...]:
    """w, x, y, z of a rotation matrix whose trace is not -1."""
    w = math.sqrt(max(1 + rotation.trace().item(), 1e-12)) / 2
    off = rotation - rotation.T
    return w, *(value.item() / (4 * w) for value in (off[2, 1], off[0, 2], off[1, 0]))


def colmap(folder: Path, binary: bool) -> Path:
    """A model of four views with two cameras; the world is turned by a right angle, as COLMAP's may be."""
    posed.write_frames(folder, "images", posed.cameras(4, start=0.2))
    turn = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    entries = []
    for i, pose in enumerate(posed.cameras(4, start=0.2)):
        axes = turn @ pose[:, :3] @ torch.diag(torch.tensor([1.0, -1, -1]))
        entries.append((i + 1, *quaternion(axes.T), *(-axes.T @ turn @ pose[:, 3]).tolist(), 1 + i % 2, f"r_{i}.png"))
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    opencv = (FOCAL, FOCAL, 10.0, 10.0, 0.01, 0.0, 0.0, 0.002)
    if not binary:
        (model / "cameras.txt").write_text(
            f"# comment\n1 SIMPLE_PINHOLE 20 20 {FOCAL} 10 10\n2 OPENCV 20 20 {' '.join(map(str, opencv))}\n"
        )
        lines = (" ".join(map(str, entry)) + "\n1.0 2.0 -1\n" for entry in entries)
        (model / "images.txt").write_text("# comment\n" + "".join(lines))
        return folder
    cameras = struct.pack("<QiiQQ3d", 2, 1, 0, 20, 20, FOCAL, 10, 10) + struct.pack("<iiQQ8d", 2, 4, 20, 20, *opencv)
    (model / "cameras.bin").write_bytes(cameras)
    images = b"".join(
        struct.pack("<i7di", *entry[:-1]) + entry[-1].encode() + b"\0" + struct.pack("<Qddq", 1, 1.0, 2.0, -1)
        for entry in entries
    )
    (model / "images.bin").write_bytes(struct.pack("<Q", 4) + images)
    return folder


@pytest.mark.parametrize("far", [1e30, 1e300])
@pytest.mark.parametrize("binary", [False, True])
def test_a_camera_far_from_all_others_is_named(tmp_path: Path, binary: bool, far: float) -> None:
    """The others would be at one place in scene coordinates, where the farthest camera is at distance 1."""
    model = colmap(tmp_path, binary) / "sparse" / "0"
    if binary:
        images = bytearray((model / "images.bin").read_bytes())
        struct.pack_into("<d", images, 8 + 4 + 4 * 8, far)
        (model / "images.bin").write_bytes(images)
    else:
        first, *rest = (model / "images.txt").read_text().replace("# comment\n", "").split("\n")
        words = first.split()
        words[5] = str(far)
        (model / "images.txt").write_text("\n".join([" ".join(words), *rest]))
    with pytest.raises(UserError, match=r"sparse/0: image r_0.png: the camera is too far away: its position is"):
        load_scene(tmp_path)


@pytest.mark.parametrize("binary", [False, True])
def test_models_of_new_versions_with_names_of_any_letters(tmp_path: Path, binary: bool) -> None:
    """Since version 3.12 there are also files of rigs and frames; names may have folders, spaces and any letters."""
    model = colmap(tmp_path, binary) / "sparse" / "0"
    for name in ("rigs", "frames"):
        (model / f"{name}.{'bin' if binary else 'txt'}").write_bytes(struct.pack("<Q", 0) if binary else b"# no rig\n")
    folder = tmp_path / "images" / "linke Kamera"
    folder.mkdir()
    for i in range(4):
        (tmp_path / "images" / f"r_{i}.png").rename(folder / f"\u753b {i} (1).png")
    names = {f"r_{i}.png": f"linke Kamera/\u753b {i} (1).png" for i in range(4)}
    path = model / ("images.bin" if binary else "images.txt")
    data = path.read_bytes()
    for old, new in names.items():
        data = data.replace(old.encode(), new.encode())
    if binary:  # and no points
        data = data.replace(struct.pack("<Qddq", 1, 1.0, 2.0, -1), struct.pack("<Q", 0))
    path.write_bytes(data)
    scene = load_scene(tmp_path)
    assert len(scene.train) + (0 if scene.val is None else len(scene.val)) == 4 and scene.notes == ()
    assert all(name.startswith("\u753b") for name in scene.train.names)


@pytest.mark.parametrize("binary", [False, True])
def test_colmap_models(tmp_path: Path, binary: bool) -> None:
    scene = load_scene(colmap(tmp_path, binary))
    views = scene.train
    assert views.names == ["r_0.png", "r_1.png", "r_2.png", "r_3.png"]
    assert views.cameras.distortion is not None and views.cameras.distortion[:, 0].tolist() == pytest.approx(
        [0, 0.01, 0, 0.01]
    )
    found, true = views.cameras.camera_to_world, posed.cameras(4, start=0.2)
    # The same up to the turn of the world, which cannot be known but for the upward direction.
    turn = found[0, :, :3] @ true[0, :, :3].T
    torch.testing.assert_close(turn @ true[:, :, :3], found[:, :, :3], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[:, :, 3], found[:, :, 2], rtol=1e-3, atol=1e-3)  # they look at the origin
    assert found[:, 1, 1].mean() > 0.7


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("images.bin", lambda data: data[:-5], "images.bin: truncated"),
        ("images.bin", lambda data: struct.pack("<Q", 2**63) + data[8:], f"images.bin: truncated: {2**63} entries"),
        ("images.bin", lambda data: data[:-24] + b"", "images.bin: truncated"),
        ("cameras.bin", lambda data: data[:30], "cameras.bin: truncated"),
        ("cameras.bin", lambda data: b"", "cameras.bin: truncated"),
        ("images.bin", lambda data: data + b"123", "images.bin: 3 bytes after the last entry"),
        ("cameras.bin", lambda data: data + b"1", "cameras.bin: 1 bytes after the last entry"),
        (
            "cameras.bin",
            lambda data: data[:12] + struct.pack("<i", 7) + data[16:],
            "camera 1: camera model must be .*, got FOV",
        ),
        (
            "cameras.bin",
            lambda data: data[:16] + struct.pack("<Q", 2**31) + data[24:],
            r"width and height must be in \(0, ",
        ),
        ("images.bin", lambda data: struct.pack("<Q", 0), "0: the scene has 0 frames"),
        ("images.bin", lambda data: data.replace(b"r_1.png", b"r_7.png"), "image r_7.png: no such image"),
        ("images.bin", lambda data: data[:12] + struct.pack("<d", math.nan) + data[20:], "r_0.png: the pose must be"),
    ],
)
def test_bad_colmap_models(tmp_path: Path, name: str, change: Callable[[bytes], bytes], said: str) -> None:
    file = colmap(tmp_path, binary=True) / "sparse" / "0" / name
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(UserError, match=said):
        load_scene(tmp_path)


def image_lines(count: int, point_lines: Callable[[int], str]) -> str:
    poses = (f"{math.cos(i / 9)} 0 {math.sin(i / 9)} 0 0 0 4" for i in range(count))
    return "# IMAGE_ID ...\n# POINTS2D[] ...\n" + "".join(
        f"{i + 1} {pose} 1 r_{i}.png\n{point_lines(i)}" for i, pose in enumerate(poses)
    )


@pytest.mark.parametrize(
    "point_lines",
    [
        lambda i: "\n",
        lambda i: "",
        lambda i: "12 34 -1 5.5 6e1 7\n",
        lambda i: ["\n", "", "1 2 3\n", "\n\n"][i % 4],
        lambda i: ["# a comment\n", "1 2 3\r\n# another\n"][i % 2],
    ],
)
def test_lines_of_points_may_be_empty_or_missing(tmp_path: Path, point_lines: Callable[[int], str]) -> None:
    posed.write_frames(tmp_path, "images", posed.cameras(9))
    (tmp_path / "sparse").mkdir()
    (tmp_path / "sparse" / "cameras.txt").write_text("1 SIMPLE_RADIAL 20 20 20 10 10 0.1\n")
    (tmp_path / "sparse" / "images.txt").write_text(image_lines(9, point_lines), newline="")
    scene = load_scene(tmp_path)
    assert scene.val is not None and len(scene.train) + len(scene.val) == 9 and scene.notes == ()
    for lines, said in (("1 2 3 4\n", "line 4: expected IMAGE_ID"), ("1 2 3\n4 5 6\n", "line 5: expected IMAGE_ID")):
        (tmp_path / "sparse" / "images.txt").write_text(image_lines(9, lambda i, lines=lines: lines))
        with pytest.raises(UserError, match=said):
            load_scene(tmp_path)
    whole = "3 0.9 0.1 0.2 0.3 0.5 0.6 4.5 1 r_2.png"
    for words in range(1, 10):  # a line that was cut is no line of points
        cut = " ".join(whole.split()[:words]) + "\n"
        (tmp_path / "sparse" / "images.txt").write_text(image_lines(2, lambda i: "") + cut)
        with pytest.raises(UserError, match="line 5: expected IMAGE_ID"):
            load_scene(tmp_path)
    again = image_lines(4, lambda i: "") + image_lines(1, lambda i: "")
    (tmp_path / "sparse" / "images.txt").write_text(again)
    with pytest.raises(UserError, match=r"there are two poses of r_0\.png"):
        load_scene(tmp_path)


def test_what_a_colmap_model_lacks_is_said(tmp_path: Path) -> None:
    """Of several models the largest is taken; pictures without a pose, and a head that says more images, are named."""
    posed.write_frames(tmp_path, "images", posed.cameras(9))
    for name, count in (("0", 2), ("1", 7), ("10", 1), ("notes", 0)):
        model = tmp_path / "sparse" / name
        model.mkdir(parents=True)
        if count:
            (model / "cameras.txt").write_text("1 SIMPLE_PINHOLE 20 20 20 10 10\n")
            head = "# Number of images: 8, mean observations per image: 3\n"
            (model / "images.txt").write_text(head + image_lines(count, lambda i: "\n"))
    scene = load_scene(tmp_path)
    assert scene.val is not None and len(scene.train) + len(scene.val) == 7
    model = tmp_path / "sparse" / "1"
    assert scene.notes == (
        f"{model / 'images.txt'}: its head says 8 images, and there are 7",
        f"{model}: the model of most photographs, 7; not used: sparse/0 (2), sparse/10 (1)",
        f"{model}: 2 images in {tmp_path / 'images'} have no pose and are left out",
    )


@pytest.mark.parametrize(
    ("camera", "row", "fisheye"),
    [
        ("FULL_OPENCV 20 20 20 21 10 11 .1 .2 .3 .4 .5 .6 .7 .8", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0), False),
        ("OPENCV_FISHEYE 20 20 20 21 10 11 .1 .2 .3 .4", (0.1, 0.2, 0, 0, 0.3, 0, 0, 0, 0.4), True),
        ("SIMPLE_RADIAL_FISHEYE 20 20 20 10 11 .1", (0.1, 0, 0, 0, 0, 0, 0, 0, 0), True),
        ("RADIAL_FISHEYE 20 20 20 10 11 .1 .2", (0.1, 0.2, 0, 0, 0, 0, 0, 0, 0), True),
        ("SIMPLE_FISHEYE 20 20 20 10 11", (0.0,) * 9, True),
        ("FISHEYE 20 20 20 21 10 11", (0.0,) * 9, True),
    ],
)
def test_lenses_of_colmap(tmp_path: Path, camera: str, row: tuple[float, ...], fisheye: bool) -> None:
    posed.write_frames(tmp_path, "images", posed.cameras(2))
    (tmp_path / "sparse").mkdir()
    (tmp_path / "sparse" / "cameras.txt").write_text(f"1 {camera}\n")
    (tmp_path / "sparse" / "images.txt").write_text(image_lines(2, lambda i: "\n"))
    cameras = load_scene(tmp_path).train.cameras
    assert cameras.distortion is not None and cameras.distortion[0].tolist() == pytest.approx(row)
    assert (cameras.fisheye is not None) == fisheye
    (tmp_path / "sparse" / "cameras.txt").write_text(f"1 {camera}\n1 {camera}\n")
    with pytest.raises(UserError, match="line 2: camera 1 is there twice"):
        load_scene(tmp_path)


def test_colmap_cameras_that_agree_on_no_upward_direction(tmp_path: Path) -> None:
    file = colmap(tmp_path, binary=False) / "sparse" / "0" / "images.txt"
    names = (
        (tmp_path / "images" / "r_0.png").rename(tmp_path / "images" / "a\u00e4.png"),
        tmp_path / "images" / "r_1.png",
    )
    turned = ("1 0 0 0", "0 0 0 1")  # one upside down
    lines = (
        f"{i + 1} {q} 0 0 {4 + i} 1 {name.name}\n\n" for i, (q, name) in enumerate(zip(turned, names, strict=True))
    )
    file.write_text("".join(lines), encoding="utf-8")
    assert load_scene(tmp_path).train.cameras.camera_to_world[:, 1, 1].tolist() == [-1, 1]
