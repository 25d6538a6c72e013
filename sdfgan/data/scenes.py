"""Scenes as posed pictures: Blender's NeRF format, transforms.json of instant-ngp and nerfstudio, COLMAP models.

Cameras are those of `sdfgan.cameras`, in coordinates in which the scene has a fixed size (`Scene.to_file` undoes that):
bounded     Blender's format with alpha: the file's cube [-1.5, 1.5]^3, or scene_scale times it, becomes [-1, 1]^3
unbounded   all others: what the cameras look at is the origin, all of them are in the unit ball, nothing has an end
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sdfgan.cameras import from_blender
from sdfgan.data.archives import MOST_BYTES, SUFFIXES, natural
from sdfgan.data.colmap import find_model, read_model
from sdfgan.data.images import decode_whole
from sdfgan.errors import UserError
from sdfgan.ops.pixels import PixelViews, pixel_views

_OBJECT_SIDE = 1.5  # half of it, in the units of Blender's scenes
_HELD_OUT_EVERY = 8  # photograph, where the files name no split, as in mip-NeRF 360
_MOST_PICTURE_BYTES = 16 * 2**30
_SKEW = 0.02  # how far from a rotation (times a scale) a pose may be
_DISTORTION = ("k1", "k2", "p1", "p2")
_UNKNOWN_DISTORTION = ("k3", "k4", "k5", "k6")
_PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "PERSPECTIVE")


@dataclass(frozen=True)
class Views:
    """N posed pictures, of any sizes."""

    names: list[str]
    pixels: Tensor  # [P, 4] uint8, premultiplied RGBA of all pixels of all pictures, row by row
    sizes: Tensor  # [N, 2] int64, height and width
    cameras: PixelViews

    def __len__(self) -> int:
        return len(self.names)

    def select(self, indices: list[int]) -> Views:
        """Some of the views."""
        cameras = self.cameras
        pixels = torch.cat([self.pixels[cameras.starts[i] : cameras.starts[i + 1]] for i in indices])
        lens = None if cameras.distortion is None else cameras.distortion[indices]
        sizes = self.sizes[indices]
        chosen = pixel_views(cameras.camera_to_world[indices], cameras.intrinsics[indices], sizes, lens)
        return Views([self.names[i] for i in indices], pixels, sizes, chosen)

    def to(self, device: torch.device) -> Views:
        """The same on a device."""
        moved = {name: part.to(device) for name, part in self.cameras._asdict().items() if part is not None}
        return Views(self.names, self.pixels.to(device), self.sizes.to(device), PixelViews(**moved))

    def picture(self, index: int, background: Tensor) -> Tensor:
        """One picture [3, H, W] float32 on a background [3]."""
        start, end = self.cameras.starts[index : index + 2].tolist()
        pixels = self.pixels[start:end].float() / 255
        picture = pixels[:, :3] + (1 - pixels[:, 3:]) * background
        return picture.view(*self.sizes[index].tolist(), 3).permute(2, 0, 1)


class Scene(NamedTuple):
    """What was found at a path."""

    path: Path
    train: Views
    val: Views | None
    test: Views | None
    has_alpha: bool  # whether the pictures show an object on nothing
    bounded: bool  # whether everything is in the cube [-1, 1]^3
    to_file: Tensor  # [3, 4] float64: similarity from scene coordinates to the file's, both y up


class _Frame(NamedTuple):
    """What a file says of one picture."""

    where: str  # file and frame, for messages
    path: Path
    pose: Tensor  # [3, 4] float64, y up
    intrinsics: dict[str, float]  # w, h, camera_angle_x, fl_x, cx, k1 ... as far as given
    split: str | None = None


def load_scene(
    path: Path,
    *,
    image_scale: float = 1.0,
    scene_scale: float = 1.0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Scene:
    """The scene in a folder.

    It holds transforms_train.json (and _val, _test: Blender's format), or transforms.json, or a COLMAP model (sparse/0
    with images/). Where the files name no split, every eighth picture is for validation; where they list files for
    validation or tests only, the others are for training.

    Args:
        image_scale: pictures are reduced to this share of their sides, at most 1.
        scene_scale: share of the half side (1.5) of the cube around an object, or of the farthest camera's distance.

    Raises:
        UserError: naming file and frame, for anything missing, malformed, not finite or outside the folder.
    """
    if not 0 < image_scale <= 1:
        raise UserError(f"--image-scale must be in (0, 1], got {image_scale}")
    if not 0 < scene_scale < math.inf:
        raise UserError(f"--scene-scale must be positive, got {scene_scale}")
    frames = _frames(path)
    if not frames:
        raise UserError(f"{path}: the scene has 0 frames")
    poses = torch.stack([frame.pose for frame in frames])
    pictures, has_alpha = _read_pictures(frames, image_scale, on_progress)
    bounded = has_alpha and (path / "transforms_train.json").is_file()
    to_file = _box(scene_scale) if bounded else _surroundings(poses, scene_scale)
    poses = _into_scene(poses, to_file).float()
    if not poses.isfinite().all():
        farthest = frames[max(range(len(frames)), key=lambda i: frames[i].pose[:, 3].abs().max().item())]
        raise UserError(f"{farthest.where}: the camera is too far away: its position is {farthest.pose[:, 3].tolist()}")
    views = _views(frames, pictures, poses, image_scale)
    splits = [frame.split for frame in frames]
    if not any(splits):
        splits = ["val" if i % _HELD_OUT_EVERY == _HELD_OUT_EVERY // 2 else "train" for i in range(len(frames))]
    parts = {name: [i for i, split in enumerate(splits) if split == name] for name in ("train", "val", "test")}
    if not parts["train"]:
        raise UserError(f"{path}: 0 frames to train with")
    val, test = (views.select(parts[name]) if parts[name] else None for name in ("val", "test"))
    return Scene(path, views.select(parts["train"]), val, test, has_alpha, bounded, to_file)


def _frames(path: Path) -> list[_Frame]:
    if not path.is_dir():
        raise UserError(f"{path}: no such folder of a scene")
    if (path / "transforms_train.json").is_file():
        found = [path / f"transforms_{split}.json" for split in ("train", "val", "test")]
        return [frame for file in found if file.is_file() for frame in _json_frames(file, file.stem[11:])]
    if (path / "transforms.json").is_file():
        return _json_frames(path / "transforms.json")
    model = find_model(path)
    if model is None:
        raise UserError(f"{path}: expected transforms_train.json, transforms.json or a COLMAP model in sparse/0")
    return _colmap_frames(path, model)


# ------------------------------------------------------------------------------------------------------------- files


def _json_frames(file: Path, split: str | None = None) -> list[_Frame]:
    """The frames of a transforms.json, in natural order of their names."""
    values = _read_json(file)
    frames = values.get("frames")
    if not isinstance(frames, list):
        raise UserError(f"{file}: frames must be a list, got {type(frames).__name__}")
    splits: dict[PurePosixPath, str] = {}
    for name in ("train", "val", "test"):
        listed = values.get(f"{name}_filenames", [])
        if not isinstance(listed, list):
            raise UserError(f"{file}: {name}_filenames must be a list, got {type(listed).__name__}")
        splits |= {PurePosixPath(str(entry)): name for entry in listed}
    rest = "train" if splits and "train_filenames" not in values else None
    result = []
    for index, frame in enumerate(frames):
        where = f"{file}: frame {index}"
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise UserError(f"{where}: file_path must be a text")
        where += f" ({frame['file_path']})"
        given = {**values, **frame}
        model = given.get("camera_model", "OPENCV")
        if model not in _PINHOLES or given.get("is_fisheye"):
            raise UserError(f"{where}: camera_model must be one of {', '.join(_PINHOLES)}, got {model}")
        names = ("w", "h", "camera_angle_x", "camera_angle_y", "fl_x", "fl_y", "cx", "cy", *_DISTORTION)
        numbers = {name: _number(given[name], name, where) for name in names if name in given}
        for name in _UNKNOWN_DISTORTION:
            if name in given and _number(given[name], name, where) != 0:
                raise UserError(f"{where}: {name} must be 0 (the lens model has k1, k2, p1, p2), got {given[name]}")
        picture = _inside(file.parent, frame["file_path"], where)
        pose = _pose(frame.get("transform_matrix"), where)
        own = split or splits.get(PurePosixPath(frame["file_path"]), rest)
        result.append(_Frame(where, picture, pose, numbers, own))
    return sorted(result, key=lambda frame: natural(frame.path.as_posix()))


def _read_json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MOST_BYTES:
            raise UserError(f"{file}: more than {MOST_BYTES} bytes")
        values = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{file}: expected an object with frames, got {type(values).__name__}")
    return values


def _number(value: Any, name: str, where: str) -> float:
    try:
        number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UserError(f"{where}: {name} must be a finite number, got {str(value)[:40]}")
    return number


def _inside(root: Path, name: str, where: str) -> Path:
    """The picture called `name`, whose suffix may be left out; it must lie in the scene's folder."""
    path = root / name
    try:
        if path.suffix.lower() not in SUFFIXES:
            path = next((p for s in SUFFIXES if (p := path.with_name(path.name + s)).is_file()), path)
        if not path.resolve().is_relative_to(root.resolve()):
            raise UserError(f"{where}: file_path must stay inside {root}")
        if not path.is_file():
            raise UserError(f"{where}: no such picture: {path}")
    except (OSError, ValueError) as error:  # a name too long, or with a NUL
        raise UserError(f"{where}: file_path is no path: {error}") from error
    return path


def _pose(matrix: Any, where: str) -> Tensor:
    """`camera_to_world` [3, 4] float64, y up, of a transform_matrix: a rotation, maybe scaled, and a position."""
    rows = matrix if isinstance(matrix, list) else []
    if len(rows) not in (3, 4) or not all(isinstance(row, list) and len(row) == 4 for row in rows):
        raise UserError(f"{where}: transform_matrix must be 4 rows of 4 numbers")
    numbers = [[_number(value, "transform_matrix", where) for value in row] for row in rows]
    pose = torch.tensor(numbers, dtype=torch.float64)[:3]
    scale = pose[:, :3].norm(dim=0).mean()
    rotation = pose[:, :3] / scale.clamp(min=1e-12)
    if (rotation.T @ rotation - torch.eye(3)).abs().max() > _SKEW or torch.linalg.det(rotation) < 0:
        raise UserError(f"{where}: transform_matrix must be a rotation and a position, got {numbers[:3]}")
    u, _, v = torch.linalg.svd(rotation)
    return from_blender(torch.cat((u @ v, pose[:, 3:]), 1))


def _colmap_frames(root: Path, model: Path) -> list[_Frame]:
    images = read_model(model)
    if not images:
        raise UserError(f"{model}: the scene has 0 frames")
    up = torch.tensor([[row[1] for row in image.pose] for image in images], dtype=torch.float64).mean(0)
    upright = _rotation_to_up(up)
    folder = root / "images" if (root / "images").is_dir() else root
    result = []
    for image in images:
        where = f"{model}: image {image.name}"
        numbers = {"w": float(image.camera.width), "h": float(image.camera.height), **image.camera.parameters}
        if "f" in numbers:
            numbers["fl_x"] = numbers["fl_y"] = numbers.pop("f")
        else:
            numbers["fl_x"], numbers["fl_y"] = numbers.pop("fx"), numbers.pop("fy")
        numbers = {name: _number(value, name, where) for name, value in numbers.items()}
        pose = upright @ torch.tensor(image.pose, dtype=torch.float64)
        result.append(_Frame(where, _inside(folder, image.name, where), pose, numbers))
    return sorted(result, key=lambda frame: natural(frame.path.as_posix()))


def _rotation_to_up(up: Tensor) -> Tensor:
    """A rotation [3, 3] that takes `up` to +y; the identity where there is no such direction."""
    if up.norm() < 1e-6:
        return torch.eye(3, dtype=up.dtype)
    y = F.normalize(up, dim=0)
    side = torch.eye(3, dtype=up.dtype)[y.abs().argmin()]
    z = F.normalize(torch.linalg.cross(side, y), dim=0)
    return torch.stack((torch.linalg.cross(y, z), y, z))


# ---------------------------------------------------------------------------------------------------------- pictures


def _read_pictures(
    frames: list[_Frame], scale: float, on_progress: Callable[[int, int], None] | None
) -> tuple[list[np.ndarray], bool]:
    """All pictures [H, W, 4], and whether they have alpha."""
    pictures: list[np.ndarray] = []
    alphas: list[bool] = []
    size = 0
    with ThreadPoolExecutor(8) as pool:
        for frame, found in zip(frames, pool.map(lambda f: decode_whole(f.path, scale), frames), strict=True):
            if isinstance(found, str):
                raise UserError(f"{frame.where}: {frame.path}: {found}")
            size += found[0].nbytes
            if size > _MOST_PICTURE_BYTES:
                raise UserError(
                    f"{frame.where}: the pictures take more than {_MOST_PICTURE_BYTES >> 30} GiB: reduce them, for "
                    "example with --image-scale 0.5"
                )
            pictures.append(found[0])
            alphas.append(found[1])
            if on_progress is not None:
                on_progress(len(pictures), len(frames))
    if any(alphas) and not all(alphas):
        bad = frames[alphas.index(False)]
        raise UserError(f"{bad.where}: {bad.path} has no alpha, but other pictures have: all of a scene must, or none")
    return pictures, all(alphas)


def _views(frames: list[_Frame], pictures: list[np.ndarray], poses: Tensor, scale: float) -> Views:
    sizes = torch.tensor([picture.shape[:2] for picture in pictures])
    found = zip(frames, sizes.tolist(), strict=True)
    intrinsics = torch.tensor([_intrinsics(frame, height, width, scale) for frame, (height, width) in found])
    lens = torch.tensor([[frame.intrinsics.get(name, 0.0) for name in _DISTORTION] for frame in frames])
    cameras = pixel_views(poses, intrinsics, sizes, lens if lens.any() else None)
    pixels = torch.cat([torch.from_numpy(picture).view(-1, 4) for picture in pictures])
    return Views([frame.path.name for frame in frames], pixels, sizes, cameras)


def _intrinsics(frame: _Frame, height: int, width: int, scale: float) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy in pixels of a picture of this size, whose sides are `scale` times the file's."""
    given, where = frame.intrinsics, frame.where
    said_width, said_height = given.get("w", width / scale), given.get("h", height / scale)
    if min(said_width, said_height) < 1 or abs(said_width / said_height * height / width - 1) > 1.5 / min(
        height, width
    ):
        raise UserError(
            f"{where}: {frame.path} is {width} x {height} pixels, which does not fit w and h, "
            f"{said_width:g} x {said_height:g}"
        )
    # The files' numbers may be for a larger version of the picture.
    x_scale, y_scale = width / said_width, height / said_height
    if "fl_x" in given:
        fx = given["fl_x"] * x_scale
    elif "camera_angle_x" in given:
        fx = width / 2 / math.tan(_angle(given["camera_angle_x"], "camera_angle_x", where) / 2)
    else:
        raise UserError(f"{where}: no focal length: fl_x or camera_angle_x is needed")
    if "fl_y" in given:
        fy = given["fl_y"] * y_scale
    elif "camera_angle_y" in given and "fl_x" not in given:
        fy = height / 2 / math.tan(_angle(given["camera_angle_y"], "camera_angle_y", where) / 2)
    else:
        fy = fx  # square pixels
    if not (fx > 0 and fy > 0):
        raise UserError(f"{where}: singular intrinsics: focal lengths must be positive, got {fx:g} and {fy:g}")
    return fx, fy, given.get("cx", said_width / 2) * x_scale, given.get("cy", said_height / 2) * y_scale


def _angle(value: float, name: str, where: str) -> float:
    if not 0 < value < math.pi:
        raise UserError(f"{where}: singular intrinsics: {name} must be in (0, pi), got {value:g}")
    return value


# ---------------------------------------------------------------------------------------------------------- the place


def _box(scene_scale: float) -> Tensor:
    """The similarity [3, 4] from the cube [-1, 1]^3 to that of an object."""
    return torch.cat((torch.eye(3) * _OBJECT_SIDE * scene_scale, torch.zeros(3, 1)), 1).double()


def _surroundings(poses: Tensor, scene_scale: float) -> Tensor:
    """The similarity [3, 4] from scene to file for cameras [N, 3, 4]: what they look at becomes the origin.

    That is the point nearest to all optical axes by least squares; the farthest camera is then at distance
    1 / scene_scale.
    """
    position, axis = poses[:, :, 3], F.normalize(poses[:, :, 2], dim=1)
    across = torch.eye(3, dtype=poses.dtype) - axis[:, :, None] * axis[:, None]  # projections off the axes
    # Parallel axes meet nowhere: then the point is pulled to the cameras' middle.
    matrix = across.mean(0) + 1e-6 * torch.eye(3, dtype=poses.dtype)
    target = (across @ position[:, :, None]).mean(0)[:, 0] + 1e-6 * position.mean(0)
    centre = torch.linalg.solve(matrix, target)
    radius = (position - centre).norm(dim=1).max().clamp(min=1e-6) * scene_scale
    return torch.cat((radius * torch.eye(3, dtype=poses.dtype), centre[:, None]), 1)


def _into_scene(poses: Tensor, to_file: Tensor) -> Tensor:
    """Cameras [N, 3, 4] of the file in scene coordinates."""
    position = (poses[:, :, 3] - to_file[:, 3]) / to_file[0, 0]
    return torch.cat((poses[:, :, :3], position[:, :, None]), 2)
