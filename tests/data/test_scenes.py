"""Posed pictures: three formats give the same rays, and whatever is wrong with them is said in one line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import posed
from sdfgan.cameras import from_blender, ray_grid
from sdfgan.data.scenes import load_scene
from sdfgan.errors import UserError
from sdfgan.ops import sample_pixels, valid_pixels

FOCAL = posed.SIDE / 2 / math.tan(posed.FOV / 2)


@pytest.fixture
def blender(tmp_path: Path) -> Path:
    return posed.blender_scene(tmp_path / "scene", train=3, val=1)


def transforms(folder: Path, count: int = 9, **values: Any) -> Path:
    """A scene with transforms.json, of opaque pictures."""
    frames = posed.write_frames(folder, "images", posed.cameras(count))
    for frame in frames:
        path = folder / f"{frame['file_path']}.png"
        Image.open(path).convert("RGB").save(path)
    everything = {"fl_x": FOCAL, "w": posed.SIDE, "h": posed.SIDE, "frames": frames, **values}
    (folder / "transforms.json").write_text(json.dumps(everything))
    return folder


def edit(file: Path, change: Callable[[dict], Any]) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def test_blender_rays_pass_through_pixel_centres(blender: Path, assert_close: Callable[[Tensor, Tensor], None]) -> None:
    scene = load_scene(blender)
    assert (len(scene.train), scene.val and len(scene.val), scene.test) == (3, 1, None)
    assert scene.has_alpha and scene.bounded
    seen = sample_pixels(scene.train.cameras, torch.arange(3 * posed.SIDE**2), scene.train.pixels)
    origins, directions = ray_grid(posed.cameras(3), posed.SIDE, fov=posed.FOV)
    assert_close(seen.directions, directions.reshape(-1, 3))
    assert_close(seen.origins * 1.5, origins.reshape(-1, 3).contiguous())  # the cube of side 3 became [-1, 1]^3
    assert seen.colors is not None
    straight = torch.from_numpy(posed.images(posed.cameras(3))).view(-1, 4).float() / 255
    assert (seen.colors[:, :3] - straight[:, :3] * straight[:, 3:]).abs().max() < 1.5 / 255
    on_red = scene.train.image(1, torch.tensor([1.0, 0, 0]))
    assert on_red.shape == (3, posed.SIDE, posed.SIDE) and on_red[:, 0, 0].tolist() == [1, 0, 0]


def test_pictures_can_be_reduced(blender: Path) -> None:
    small, whole = load_scene(blender, image_scale=0.5), load_scene(blender)
    assert small.train.sizes.tolist() == [[10, 10]] * 3
    torch.testing.assert_close(small.train.cameras.intrinsics, whole.train.cameras.intrinsics / 2)
    black = torch.zeros(3)
    reduced = torch.nn.functional.avg_pool2d(whole.train.image(0, black), 2)
    assert (small.train.image(0, black) - reduced).abs().max() < 1.5 / 255


def test_photographs_are_centred_where_the_cameras_look(tmp_path: Path) -> None:
    def move(values: dict) -> None:
        for i, frame in enumerate(values["frames"]):
            frame["transform_matrix"] = [
                [*row[:3], row[3] + shift]
                for row, shift in zip(frame["transform_matrix"], (5.0, 6.0, 7.0, 0.0), strict=True)
            ]
            frame["fl_x"] = FOCAL + i

    folder = transforms(tmp_path, k1=0.1, p2=-0.02, cx=11.0)
    edit(folder / "transforms.json", move)
    scene = load_scene(folder)
    assert not scene.bounded and not scene.has_alpha
    assert scene.val is not None and scene.val.names == ["r_4.png"] and len(scene.train) == 8
    cameras = scene.train.cameras
    position = cameras.camera_to_world[:, :, 3]
    torch.testing.assert_close(position.norm(dim=1), torch.ones(8), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scene.to_file[:, 3].float(), torch.tensor([5.0, 7.0, -6.0]), rtol=1e-4, atol=1e-4)
    assert cameras.intrinsics[:, 0].tolist() == pytest.approx([FOCAL + i for i in range(9) if i != 4], rel=1e-6)
    assert cameras.intrinsics[0, 1:].tolist() == pytest.approx([FOCAL, 11.0, 10.0], rel=1e-6)
    assert cameras.distortion is not None
    assert cameras.distortion[0].tolist() == pytest.approx([0.1, 0, 0, -0.02])


def test_nerfstudio_splits_and_pictures_of_several_sizes(tmp_path: Path) -> None:
    folder = transforms(tmp_path, count=3)
    Image.new("RGB", (40, 30), (10, 20, 30)).save(folder / "images" / "r_1.png")

    def split(values: dict) -> None:
        names = [frame["file_path"] for frame in values["frames"]]
        values["frames"][1] |= {"w": 80, "h": 60, "fl_x": 100.0, "cx": 40, "cy": 30}
        values |= {"test_filenames": [names[2].removeprefix("./")], "camera_model": "OPENCV"}

    file = folder / "transforms.json"
    edit(file, split)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())  # as some editors write it
    scene = load_scene(folder)
    assert scene.val is None and scene.test is not None and scene.test.names == ["r_2.png"]
    assert scene.train.sizes.tolist() == [[20, 20], [30, 40]]
    assert scene.train.cameras.intrinsics[1].tolist() == [50, 50, 20, 15]
    assert (scene.train.image(1, torch.zeros(3))[:, 7, 3] * 255).round().tolist() == [10, 20, 30]
    file.write_bytes(file.read_bytes()[3:])
    edit(file, lambda values: values.update(train_filenames=["images/r_0"]))
    assert load_scene(folder).train.names == ["r_0.png"]


NAMES = [f"./images/r_{i}" for i in range(9)]


@pytest.mark.parametrize(
    ("lists", "counts"),
    [
        # Suffixes, backslashes and dots that only the lists, or only the frames, have.
        ({"train": [f"{name}.png" for name in NAMES[:6]], "val": ["images/r_6.png"], "test": NAMES[7:8]}, (6, 1, 1)),
        ({"train": [f"images\\r_{i}" for i in range(6)], "val": [".\\images\\r_6.png"], "test": NAMES[7:]}, (6, 1, 2)),
        ({"val": ["images/r_8.png", "images/r_1"]}, (7, 2, 0)),
        ({"train": NAMES[:3], "test": NAMES[5:7]}, (3, 0, 2)),
        ({"train": [], "val": []}, (8, 1, 0)),
    ],
)  # fmt: skip
def test_lists_of_file_names(tmp_path: Path, lists: dict[str, list[str]], counts: tuple[int, ...]) -> None:
    folder = transforms(tmp_path, **{f"{name}_filenames": entries for name, entries in lists.items()})
    scene = load_scene(folder)
    assert tuple(0 if part is None else len(part) for part in (scene.train, scene.val, scene.test)) == counts
    left_out = [note for note in scene.notes if "in no list" in note]
    assert len(left_out) == (sum(counts) < 9)
    if left_out:
        assert f"{9 - sum(counts)} of 9 frames are in no list of file names and left out" in left_out[0]
    windows = folder / "transforms.json"  # the same where the frames have suffixes and backslashes
    edit(
        windows,
        lambda values: [f.update(file_path=f["file_path"][2:].replace("/", "\\") + ".png") for f in values["frames"]],
    )
    scene = load_scene(folder)
    assert tuple(0 if part is None else len(part) for part in (scene.train, scene.val, scene.test)) == counts


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ({"val": ["images/6.png"]}, "val_filenames: no frame is called images/6.png"),
        ({"train": ["images/r_0.jpg.png"]}, "train_filenames: no frame is called images/r_0.jpg.png"),
        ({"train": NAMES, "val": NAMES[2:3]}, "r_2 is in train_filenames and in val_filenames"),
        ({"test": [3]}, "test_filenames must hold texts, got 3"),
        ({"test": "images/r_0"}, "test_filenames must be a list, got str"),
    ],
)
def test_lists_that_name_no_frame(tmp_path: Path, lists: dict[str, Any], said: str) -> None:
    folder = transforms(tmp_path, **{f"{name}_filenames": entries for name, entries in lists.items()})
    with pytest.raises(UserError, match=said):
        load_scene(folder)


def test_a_listed_name_that_may_be_two_frames(tmp_path: Path) -> None:
    folder = transforms(tmp_path, count=2, val_filenames=["images/a"])
    (folder / "images" / "r_0.png").rename(folder / "images" / "a.png")
    Image.new("RGB", (posed.SIDE, posed.SIDE)).save(folder / "images" / "a.jpg")

    def name(values: dict) -> None:
        for frame, file in zip(values["frames"], ("images/a.png", "images/a.jpg"), strict=True):
            frame["file_path"] = file

    edit(folder / "transforms.json", name)
    with pytest.raises(UserError, match=r"val_filenames: images/a may be images/a.png or images/a.jpg"):
        load_scene(folder)
    edit(folder / "transforms.json", lambda values: values.update(val_filenames=["images/a.jpg"]))
    assert load_scene(folder).train.names == ["a.png"]


K = (0.1, -0.02, 0.003, 0.004, 0.005, -0.006)


@pytest.mark.parametrize(
    ("values", "row", "fisheye"),
    [
        ({"distortion_params": [*K[:4], 0.01, -0.02]}, (*K[:2], 0.01, -0.02, K[2], 0, 0, 0, K[3]), False),
        ({"distortion_params": [0.1, 0, 0, 0, 0, 0], "k1": 0.1}, (0.1, 0, 0, 0), False),
        ({"k1": 0.1, "k3": 0.2, "p2": 0.3}, (0.1, 0, 0, 0.3, 0.2, 0, 0, 0, 0), False),
        ({f"k{i + 1}": k for i, k in enumerate(K)}, (*K[:2], 0, 0, *K[2:], 0), False),
        ({"camera_model": "FULL_OPENCV", "k4": 0.1}, (0, 0, 0, 0, 0, 0.1, 0, 0, 0), False),
        ({"camera_model": "OPENCV_FISHEYE", "k1": 0.1, "k4": 0.2}, (0.1, 0, 0, 0, 0, 0, 0, 0, 0.2), True),
        ({"is_fisheye": True, "distortion_params": [0.1, 0, 0.3, 0.2, 0, 0]}, (0.1, 0, 0, 0, 0.3, 0, 0, 0, 0.2), True),
        ({"is_fisheye": True}, (0,) * 9, True),
        ({"latlong": False, "rolling_shutter": [0, 0, 0, 0], "is_fisheye": False}, None, False),
        ({"s1": 0.0, "dist_coeffs": [0, 0], "distortion": {"k": 0}, "is_fisheye": None}, None, False),
    ],
)  # fmt: skip
def test_lenses_of_transforms(tmp_path: Path, values: dict[str, Any], row: tuple | None, fisheye: bool) -> None:
    cameras = load_scene(transforms(tmp_path, count=2, **values)).train.cameras
    assert (cameras.fisheye is not None) == fisheye
    if row is None:
        assert cameras.distortion is None
    else:
        assert cameras.distortion is not None and cameras.distortion[0].tolist() == pytest.approx(row)
    assert sample_pixels(cameras, torch.arange(posed.SIDE**2)).radii.isfinite().all()


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"camera_angle_x": 1.0}, (10 / math.tan(0.5), 10 / math.tan(0.5))),
        ({"fl_x": 30.0}, (30, 30)),
        ({"fl_x": 30.0, "fl_y": 40.0}, (30, 40)),
        ({"fl_y": 40.0}, (40, 40)),
        ({"camera_angle_y": 1.0}, (10 / math.tan(0.5), 10 / math.tan(0.5))),
        ({}, (FOCAL, 50)),
    ],
)
def test_a_frame_with_a_focal_length_has_nothing_of_that_of_the_file(
    tmp_path: Path, own: dict[str, float], expected: tuple[float, float]
) -> None:
    """As in instant-ngp."""
    folder = transforms(tmp_path, count=2, fl_y=50.0)
    edit(folder / "transforms.json", frame(1, **own))
    cameras = load_scene(folder).train.cameras
    assert cameras.intrinsics[:, :2].tolist() == [pytest.approx((FOCAL, 50)), pytest.approx(expected)]


def test_masks_take_pixels_out(tmp_path: Path) -> None:
    """Zero is hidden, whatever the mask's kind; where pictures are reduced, a pixel is seen if all of it was."""
    folder, side = transforms(tmp_path, count=3), posed.SIDE
    (folder / "masks").mkdir()
    shown = torch.ones(side, side, dtype=torch.bool)
    shown[:7, 5:] = False
    grey = Image.fromarray((shown * 255).to(torch.uint8).numpy())
    grey.save(folder / "masks" / "a.png")
    grey.point(lambda value: value and 1).save(folder / "masks" / "b.png")  # 0 and 1
    edit(folder / "transforms.json", frame(0, mask_path="masks/a.png"))
    edit(folder / "transforms.json", frame(1, mask_path="masks/b.png"))
    scene = load_scene(folder)
    good = valid_pixels(scene.train.cameras)
    expected = torch.cat([shown.flatten(), shown.flatten(), torch.ones(side**2, dtype=torch.bool)])
    assert torch.equal(good, expected.nonzero()[:, 0])
    assert scene.train.image(0, torch.tensor([0.0, 1, 0]))[:, 0, 6].tolist() == [0, 1, 0]
    part = scene.train.select([2, 1])
    assert torch.equal(valid_pixels(part.cameras), expected.view(3, -1)[[2, 1]].flatten().nonzero()[:, 0])
    cut_out = Image.new("RGBA", grey.size, "white")
    cut_out.putalpha(grey)  # white all over, transparent where it hides
    cut_out.save(folder / "masks" / "a.png")
    assert torch.equal(valid_pixels(load_scene(folder).train.cameras), good)
    small = load_scene(folder, image_scale=0.5).train.cameras
    half = shown.view(side // 2, 2, side // 2, 2).all(3).all(1).flatten()
    assert torch.equal(valid_pixels(small)[: half.sum()], half.nonzero()[:, 0])
    Image.new("L", (side, side + 1)).save(folder / "masks" / "a.png")
    with pytest.raises(UserError, match=r"frame 0 .*a.png is 20 x 21 pixels, its image 20 x 20"):
        load_scene(folder)
    (folder / "masks" / "a.png").write_text("x")
    with pytest.raises(UserError, match=r"frame 0 .*a.png: not an image"):
        load_scene(folder)


def test_what_nothing_uses_is_said(tmp_path: Path, blender: Path) -> None:
    folder = transforms(tmp_path, aabb_scale=4, k1=0.0, ftheta_p0=0)
    edit(folder / "transforms.json", frame(3, depth_file_path="d.png", colmap_im_id=3))
    (note,) = load_scene(folder).notes
    assert (
        note == f"{folder / 'transforms.json'}: not used: aabb_scale, colmap_im_id of frames, depth_file_path of frames"
    )
    edit(blender / "transforms_val.json", lambda values: values.update(val_filenames=["x"]))
    assert load_scene(blender).notes == (f"{blender / 'transforms_val.json'}: not used: val_filenames",)


def test_pinholes_see_what_lenses_see(tmp_path: Path) -> None:
    views = load_scene(transforms(tmp_path / "a", count=3, k1=-0.3)).train
    found = views.pinholes()
    assert found is not None
    cameras, sizes = found
    rays = sample_pixels(views.cameras, torch.arange(int(views.cameras.starts[-1])))
    for i, (pose, (fx, fy, cx, cy), (height, width)) in enumerate(
        zip(cameras.camera_to_world, cameras.intrinsics, sizes, strict=True)
    ):
        own = rays.directions[views.cameras.starts[i] : views.cameras.starts[i + 1]] @ pose[:, :3]
        column, row = cx - fx * own[:, 0] / own[:, 2], cy + fy * own[:, 1] / own[:, 2]
        assert column.min() > 0 and row.min() > 0 and column.max() < width and row.max() < height
        assert width > posed.SIDE  # a barrel sees more than the pinhole of its focal length
    assert load_scene(transforms(tmp_path / "b", count=3)).train.pinholes()[1].tolist() == [[posed.SIDE] * 2] * 3
    wide = {"camera_model": "OPENCV_FISHEYE", "fl_x": posed.SIDE / 3.3}  # 189 degrees across
    assert load_scene(transforms(tmp_path / "c", count=3, **wide)).train.pinholes() is None


# ---------------------------------------------------------------------------------------------------------- rejections


def frame(index: int, **values: Any) -> Callable[[dict], None]:
    return lambda everything: everything["frames"][index].update(values)


NAN_POSE = [[math.nan] * 4] * 4
BAD = [
    (frame(1, file_path="./train/none"), r"transforms_train.json: frame 1 \(./train/none\): no such image"),
    (frame(1, file_path="../../outside.png"), r"frame 1 .*: file_path must stay inside"),
    (frame(1, file_path="a" * 5000), r"frame 1 .*: file_path is not a path"),
    (frame(1, file_path=7), "frame 1: file_path must be a text"),
    (frame(2, transform_matrix=NAN_POSE), r"frame 2 \(./train/r_2\): transform_matrix must be .*, got nan"),
    (frame(2, transform_matrix=[[1, 2], [3, 4]]), "frame 2 .*: transform_matrix must be 4 rows of 4 numbers"),
    (frame(2, transform_matrix=[[0.0] * 4] * 4), "frame 2 .*: transform_matrix must be a rotation and a position"),
    (frame(2, transform_matrix=[[10**400] * 4] * 4), "frame 2 .*: transform_matrix must be a finite number"),
    (lambda values: values.update(frames=[]), "0 frames to train with"),
    (lambda values: values.update(frames={}), "frames must be a list, got dict"),
    (lambda values: values.update(camera_angle_x=0.0), r"frame 0 .*: singular intrinsics: camera_angle_x must be"),
    (lambda values: values.update(fl_x=0.0), "frame 0 .*: singular intrinsics: focal lengths must be positive"),
    (lambda values: values.update(fl_x=math.inf), "frame 0 .*: fl_x must be a finite number"),
    (frame(2, transform_matrix=[[1.0, 0, 0, 1e300], [0, 1, 0, 0], [0, 0, 1, 0]]), "frame 2 .*: the camera is too far"),
    (lambda values: values.pop("camera_angle_x"), "frame 0 .*: no focal length"),
    (lambda values: values.update(w=40, h=20), "r_0.png is 20 x 20 pixels, which does not fit w and h, 40 x 20"),
    (lambda values: values.update(camera_model="EQUIRECTANGULAR"), "frame 0 .*: camera_model must be one of"),
    (lambda values: values.update(camera_model=[1]), "frame 0 .*: camera_model must be one of"),
    (frame(1, camera_model="OPENCV_FISHEYE"), "frame 1 .*: a fisheye needs fl_x"),
    (frame(1, camera_model="OPENCV", is_fisheye=True), "frame 1 .*: is_fisheye and camera_model OPENCV contradict"),
    (frame(1, is_fisheye=True, fl_x=20.0, k5=0.1), "frame 1 .*: k5 and k6 must be 0 beside a fisheye"),
    (frame(1, is_fisheye="false"), "frame 1 .*: is_fisheye must be true or false, got 'false'"),
    (frame(1, s1=0.1), "frame 1 .*: s1 is not modelled"),
    (lambda values: values.update(dist_coeffs=[0.1, 0, 0, 0]), "frame 0 .*: dist_coeffs is not modelled"),
    (lambda values: values.update(distortion={"k": 0.1}), "frame 0 .*: distortion is not modelled"),
    (lambda values: values.update(fl_x=0.9, fl_y=0.9), "frame 0 .*: focal lengths must be in pixels, got 0.9 and 0.9"),
    (frame(1, k4=0.1), "frame 1 .*: k4 of a lens that is not a fisheye may mean two things"),
    (frame(1, distortion_params=[0.1, 0.2]), "frame 1 .*: distortion_params must be k1, k2, k3, k4, p1, p2, got"),
    (frame(1, distortion_params=[0.1, 0, 0, 0, 0, "x"]), r"frame 1 .*: distortion_params \(p2\) must be a finite"),
    (frame(1, distortion_params=[0.1, 0, 0, 0, 0, 0], k1=0.2), "frame 1 .*: k1 is 0.2, but 0.1 in distortion_params"),
    (lambda values: values.update(ftheta_p0=0.0, ftheta_p1=0.1), "frame 0 .*: ftheta_p1 is not modelled"),
    (lambda values: values.update(latlong=True), "frame 0 .*: latlong is not modelled"),
    (frame(2, equirectangular=1), "frame 2 .*: equirectangular is not modelled"),
    (lambda values: values.update(orthographic=True), "frame 0 .*: orthographic is not modelled"),
    (frame(2, rolling_shutter=[0, 0, 1, 0]), "frame 2 .*: rolling_shutter is not modelled"),
    (frame(2, transform_matrix_start=[[1]], transform_matrix_end=[[2]]), "frame 2 .*: moving cameras are not modelled"),
    (frame(2, transform_matrix=[*np.eye(3, 4).tolist(), [0, 0, 4, 1]]), "frame 2 .*: the last row of .* 0, 0, 0, 1"),
    (frame(2, transform_matrix=[*np.eye(3, 4).tolist(), [0, 0, 0, 2]]), "frame 2 .*: the last row of transform_matrix"),
    (frame(2, file_path="train/r_1.png"), "frame 2 .*: there are two frames of .*r_1.png"),
    (frame(2, mask_path="masks/none.png"), "frame 2 .*: no such image: .*none.png"),
    (frame(2, mask_path="../mask.png"), "frame 2 .*: mask_path must stay inside"),
    (frame(2, mask_path=3), "frame 2 .*: mask_path must be a text, got 3"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), BAD)
def test_bad_frames_are_named(blender: Path, change: Callable[[dict], Any], said: str) -> None:
    edit(blender / "transforms_train.json", change)
    with pytest.raises(UserError, match=said) as error:
        load_scene(blender)
    assert "\n" not in str(error.value) and str(blender) in str(error.value)


def test_text_of_other_encodings(blender: Path) -> None:
    """UTF-16 is what PowerShell writes; Latin-1 cannot be told from noise."""
    file = blender / "transforms_train.json"
    text = file.read_text()
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        file.write_text(text, encoding=encoding)
        assert len(load_scene(blender).train) == len(json.loads(text)["frames"])
    file.write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(UserError, match=r"transforms_train.json: not valid JSON: byte 7 is not text"):
        load_scene(blender)


def test_bad_files_are_named(blender: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder of a scene"):
        load_scene(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"expected transforms_train.json, transforms.json or a COLMAP model"):
        load_scene(tmp_path / "empty")
    picture = blender / "train" / "r_1.png"
    Image.open(picture).convert("RGB").save(picture)
    with pytest.raises(UserError, match=r"frame 1 .*r_1.png has no alpha, but other images have"):
        load_scene(blender)
    picture.write_bytes(picture.read_bytes()[:50])
    with pytest.raises(UserError, match=r"frame 1 \(./train/r_1\): .*r_1.png: "):
        load_scene(blender)
    os.remove(picture)
    os.symlink("/etc/passwd", picture)
    with pytest.raises(UserError, match="file_path must stay inside"):
        load_scene(blender)
    (blender / "transforms_train.json").write_text('{"frames": [')
    with pytest.raises(UserError, match=r"transforms_train.json: not valid JSON"):
        load_scene(blender)
    (blender / "transforms_train.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"transforms_train.json: not valid JSON"):
        load_scene(blender)


def test_scaled_and_flipped_cameras(blender: Path) -> None:
    def scale(values: dict) -> None:
        for row in values["frames"][0]["transform_matrix"][:3]:
            row[:3] = [2 * value for value in row[:3]]

    true = load_scene(blender).train.cameras.camera_to_world
    edit(blender / "transforms_train.json", scale)
    torch.testing.assert_close(load_scene(blender).train.cameras.camera_to_world, true)
    mirrored = torch.diag(torch.tensor([-1.0, 1, 1, 1])).tolist()
    edit(blender / "transforms_train.json", frame(0, transform_matrix=mirrored))
    with pytest.raises(UserError, match="must be a rotation"):
        load_scene(blender)
    assert from_blender(torch.tensor(mirrored)).shape == (3, 4)
