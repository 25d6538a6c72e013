"""transforms.json of Blender's NeRF scenes, instant-ngp and nerfstudio: frames with their poses, cameras and lenses.

A lens that is not modelled is refused by its name, and what else the file says and nothing uses is said in a note.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdfgan.cameras import from_blender, to_blender
from sdfgan.data.archives import MAX_BYTES, SUFFIXES, natural
from sdfgan.errors import UserError
from sdfgan.training.files import parse_json, read_errors

_SKEW = 0.02  # how far from a rotation (times a scale) a pose may be
PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "PERSPECTIVE")
FISHEYES = ("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
_LENS = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
_LISTED = ("k1", "k2", "k3", "k4", "p1", "p2")  # of distortion_params
_INTRINSICS = ("w", "h", "camera_angle_x", "camera_angle_y", "fl_x", "fl_y", "cx", "cy")
_FOCAL = ("camera_angle_x", "camera_angle_y", "fl_x", "fl_y")
_NOT_MODELLED = (  # beginnings
    "ftheta", "latlong", "equirectangular", "orthographic", "rolling_shutter", "from_na", "dist_coef",
    "distortion_coef", "tau",
)  # fmt: skip
_TERMS_NOT_MODELLED = ("distortion", "dist", "s1", "s2", "s3", "s4", "sx1", "sy1", "b1", "b2", "skew")
_SPLITS = ("train_filenames", "val_filenames", "test_filenames")
_USED = (*_INTRINSICS, *_LENS, "distortion_params", "camera_model", "is_fisheye", "mask_path", "frames")
_USED_OF_FRAME = ("file_path", "transform_matrix", "transform_matrix_start", "transform_matrix_end")


class Lens(NamedTuple):
    """As `ops.sample_pixels` takes it: k1, k2, p1, p2, k3, k4, k5, k6, the factor of r^8; whether it is a fisheye."""

    factors: tuple[float, ...] = (0.0,) * 9
    fisheye: bool = False


class Frame(NamedTuple):
    """What a file says of one image."""

    where: str  # file and frame, for messages
    path: Path
    pose: Tensor  # [3, 4] float64, y up
    intrinsics: dict[str, float]  # w, h, camera_angle_x, fl_x, cx ... as far as given
    lens: Lens = Lens()
    split: str | None = None
    mask: Path | None = None  # an image that is 0 where this one is not to be learnt from


def lens_of(named: Mapping[str, float], fisheye: bool, series: bool) -> Lens:
    """The lens of factors by name; with `series` the fourth is of r^8, as a fisheye's is, and not of a denominator."""
    k1, k2, k3, k4, k5, k6, p1, p2 = (named.get(name, 0.0) for name in _LENS)
    return Lens((k1, k2, p1, p2, k3, 0.0 if series else k4, k5, k6, k4 if series else 0.0), fisheye)


def read_frames(file: Path, split: str | None = None) -> tuple[list[Frame], list[str]]:
    """The frames of a transforms.json, in natural order of their names, and notes of what it says and nothing uses.

    Those of a file of one split are of that one; otherwise the file's own lists decide, if it has any.
    """
    values = _read_json(file)
    frames = values.get("frames")
    if not isinstance(frames, list):
        raise UserError(f"{file}: frames must be a list, got {type(frames).__name__}")
    for index, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise UserError(f"{file}: frame {index}: file_path must be a text")
    names = [frame["file_path"] for frame in frames]
    splits: list[str | None] = [split] * len(frames) if split else _listed_splits(file, values, names)
    result: list[Frame] = []
    images: set[Path] = set()
    for index, (frame, own) in enumerate(zip(frames, splits, strict=True)):
        where = f"{file}: frame {index} ({frame['file_path']})"
        own_focal = any(name in frame for name in _FOCAL)  # then none is taken from other cameras
        given = {**{k: v for k, v in values.items() if not (own_focal and k in _FOCAL)}, **frame}
        lens = _lens(given, where)
        numbers = {name: number(given[name], name, where) for name in _INTRINSICS if name in given}
        if lens.fisheye and "fl_x" not in numbers:
            raise UserError(f"{where}: a fisheye needs fl_x: an angle of view does not say what its focal length is")
        start, end = (frame.get(f"transform_matrix_{name}") for name in ("start", "end"))
        if start != end:
            raise UserError(
                f"{where}: transform_matrix_start and _end must be one pose: moving cameras are not modelled"
            )
        mask = given.get("mask_path")
        if not isinstance(mask, str | None):
            raise UserError(f"{where}: mask_path must be a text, got {str(mask)[:40]}")
        mask_path = inside(file.parent, mask, where, "mask_path") if mask else None
        image = inside(file.parent, frame["file_path"], where)
        pose = _pose(frame.get("transform_matrix"), where)
        if image in images:
            raise UserError(f"{where}: there are two frames of {image}")
        images.add(image)
        result.append(Frame(where, image, pose, numbers, lens, own, mask_path))
    notes = []
    used = (*_USED, *(() if split else _SPLITS))
    unused = [name for name in values if name not in used and not _is_not_modelled(name)]
    of_frames = sorted({name for frame in frames for name in frame if name not in (*used, *_USED_OF_FRAME)})
    unused += [f"{name} of frames" for name in of_frames if not _is_not_modelled(name)]
    if unused:
        notes.append(f"{file}: not used: {', '.join(unused)}")
    left_out = splits.count(None) if any(splits) else 0
    if left_out:
        notes.append(f"{file}: {left_out} of {len(frames)} frames are in no list of file names and left out")
    return sorted(result, key=lambda frame: natural(frame.path.as_posix())), notes


def transforms(frames: Sequence[Frame], root: Path, splits: bool) -> dict[str, Any]:
    """What `read_frames` reads, of frames whose images are in the folder `root`; with the lists of their `splits`.

    Cameras and lenses stand once, before the frames, if all images have the same.
    """
    poses = to_blender(torch.stack([frame.pose for frame in frames])).tolist()
    cameras = [{**frame.intrinsics, **_lens_entries(frame.lens)} for frame in frames]
    shared = cameras[0] if all(camera == cameras[0] for camera in cameras) else {}
    names = [_from(root, frame.path) for frame in frames]
    rows = []
    for frame, name, camera, pose in zip(frames, names, cameras, poses, strict=True):
        mask = {} if frame.mask is None else {"mask_path": _from(root, frame.mask)}
        rows.append({"file_path": name, **mask, **({} if shared else camera), "transform_matrix": pose})
    lists = {
        key: [name for name, frame in zip(names, frames, strict=True) if f"{frame.split}_filenames" == key]
        for key in (_SPLITS if splits else ())
    }
    return {**shared, **{key: listed for key, listed in lists.items() if listed}, "frames": rows}


def _from(root: Path, path: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _lens_entries(lens: Lens) -> dict[str, Any]:
    """As `_lens` reads them."""
    k1, k2, p1, p2, k3, k4, k5, k6, a = lens.factors
    if lens.fisheye:
        return {"camera_model": "OPENCV_FISHEYE", "k1": k1, "k2": k2, "k3": k3, "k4": a, "p1": p1, "p2": p2}
    if a:
        return {"camera_model": "OPENCV", "distortion_params": [k1, k2, k3, a, p1, p2]}
    known = {"k1": k1, "k2": k2, "k3": k3, "p1": p1, "p2": p2}
    if k4 or k5 or k6:
        return {"camera_model": "FULL_OPENCV", **known, "k4": k4, "k5": k5, "k6": k6}
    return {"camera_model": "OPENCV", **known} if any(known.values()) else {}


def _listed_splits(file: Path, values: dict[str, Any], names: list[str]) -> list[str | None]:
    """The split of each frame by the file's lists, where suffixes may be missing or added; all None without lists."""
    paths = [_slashes(name) for name in names]
    by_name: dict[PurePosixPath, list[int]] = {}
    for index, path in enumerate(paths):
        for name in {path, _stem(path)}:
            by_name.setdefault(name, []).append(index)
    splits: list[str | None] = [None] * len(names)
    for key in _SPLITS:
        listed, split = values.get(key, []), key.removesuffix("_filenames")
        if not isinstance(listed, list):
            raise UserError(f"{file}: {key} must be a list, got {type(listed).__name__}")
        for entry in listed:
            if not isinstance(entry, str):
                raise UserError(f"{file}: {key} must hold texts, got {str(entry)[:40]}")
            path = _slashes(entry)
            found = [i for i in by_name.get(path, []) if paths[i] == path] or by_name.get(path, [])
            found = found or [i for i in by_name.get(_stem(path), []) if paths[i] == _stem(path)]
            if not found:
                raise UserError(f"{file}: {key}: no frame is called {entry}")
            if len({paths[i] for i in found}) > 1:
                raise UserError(f"{file}: {key}: {entry} may be {' or '.join(str(paths[i]) for i in found)}")
            for index in found:
                if splits[index] not in (None, split):
                    raise UserError(f"{file}: {entry} is in {splits[index]}_filenames and in {key}")
                splits[index] = split
    if any(splits) and "train_filenames" not in values:
        return [split or "train" for split in splits]
    return splits


def _slashes(name: str) -> PurePosixPath:
    return PurePosixPath(name.replace("\\", "/"))


def _stem(path: PurePosixPath) -> PurePosixPath:
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


def _lens(given: dict[str, Any], where: str) -> Lens:
    """The lens of a frame. Raises UserError for what is not modelled, or may mean two things."""
    model, fisheye = given.get("camera_model"), given.get("camera_model") in FISHEYES
    if model is not None and model not in (*PINHOLES, *FISHEYES):
        raise UserError(f"{where}: camera_model must be one of {', '.join((*PINHOLES, *FISHEYES))}, got {model}")
    for name, value in given.items():
        if _is_not_modelled(name) and _says_something(value):
            raise UserError(f"{where}: {name} is not modelled: undistort the images to a pinhole first")
    if not isinstance(given.get("is_fisheye"), bool | None) and given["is_fisheye"] not in (0, 1):
        raise UserError(f"{where}: is_fisheye must be true or false, got {str(given['is_fisheye'])[:40]!r}")
    if given.get("is_fisheye"):
        if model in PINHOLES:
            raise UserError(f"{where}: is_fisheye and camera_model {model} contradict each other")
        fisheye = True
    numbers = {name: number(given[name], name, where) for name in _LENS if name in given}
    series = fisheye or "distortion_params" in given
    if "distortion_params" in given:
        listed = given["distortion_params"]
        if not isinstance(listed, list) or len(listed) != len(_LISTED):
            raise UserError(f"{where}: distortion_params must be {', '.join(_LISTED)}, got {str(listed)[:80]}")
        for name, value in zip(_LISTED, listed, strict=True):
            factor = number(value, f"distortion_params ({name})", where)
            if numbers.setdefault(name, factor) != factor:
                raise UserError(f"{where}: {name} is {numbers[name]:g}, but {factor:g} in distortion_params")
    if series and (numbers.get("k5") or numbers.get("k6")):
        beside = "a fisheye" if fisheye else "distortion_params"
        raise UserError(
            f"{where}: k5 and k6 must be 0 beside {beside}, got {numbers.get('k5')} and {numbers.get('k6')}"
        )
    rational = model == "FULL_OPENCV" or "k5" in numbers or "k6" in numbers
    if numbers.get("k4") and not series and not rational:
        raise UserError(
            f"{where}: k4 of a lens that is not a fisheye may mean two things: say camera_model FULL_OPENCV where it "
            "is OpenCV's, of the denominator, or write distortion_params [k1, k2, k3, k4, p1, p2] where it is of r^8"
        )
    return lens_of(numbers, fisheye, series)


def _is_not_modelled(name: str) -> bool:
    return name in _TERMS_NOT_MODELLED or name.startswith(_NOT_MODELLED)


def _says_something(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    return any(map(_says_something, value)) if isinstance(value, list) else bool(value)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        with read_errors(file):
            if file.stat().st_size > MAX_BYTES:
                raise UserError(f"{file}: more than {MAX_BYTES} bytes")
            values = parse_json(file.read_bytes())
    except ValueError as error:
        raise UserError(f"{file}: not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{file}: expected an object with frames, got {type(values).__name__}")
    return values


def number(value: Any, name: str, where: str) -> float:
    try:
        number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UserError(f"{where}: {name} must be a finite number, got {str(value)[:40]}")
    return number


def inside(root: Path, name: str, where: str, what: str = "file_path") -> Path:
    """The image called `name`, whose suffix may be left out; it must lie in the scene's folder."""
    path = root / name
    try:
        if "\\" in name and not path.is_file():  # written on Windows
            path = root / _slashes(name)
        if path.suffix.lower() not in SUFFIXES:
            path = next((p for s in SUFFIXES if (p := path.with_name(path.name + s)).is_file()), path)
        if not path.resolve().is_relative_to(root.resolve()):
            raise UserError(f"{where}: {what} must stay inside {root}")
        if not path.is_file():
            raise UserError(f"{where}: no such image: {path}")
    except (OSError, ValueError) as error:  # a name too long, or with a NUL
        raise UserError(f"{where}: {what} is not a path: {error}") from error
    return path


def _pose(matrix: Any, where: str) -> Tensor:
    """`camera_to_world` [3, 4] float64, y up, of a transform_matrix: a rotation, maybe scaled, and a position."""
    rows = matrix if isinstance(matrix, list) else []
    if len(rows) not in (3, 4) or not all(isinstance(row, list) and len(row) == 4 for row in rows):
        raise UserError(f"{where}: transform_matrix must be 4 rows of 4 numbers")
    numbers = [[number(value, "transform_matrix", where) for value in row] for row in rows]
    pose = torch.tensor(numbers, dtype=torch.float64, device="cpu")[:3]
    scale = pose[:, :3].norm(dim=0).mean()
    rotation = pose[:, :3] / scale.clamp(min=1e-12)
    skew = (rotation.T @ rotation - torch.eye(3, device="cpu")).abs().max()
    if skew > _SKEW or torch.linalg.det(rotation) < 0:
        raise UserError(f"{where}: transform_matrix must be a rotation and a position, got {numbers[:3]}")
    if numbers[3:] and max(abs(a - b) for a, b in zip(numbers[3], (0, 0, 0, 1), strict=True)) > 1e-6:
        raise UserError(f"{where}: the last row of transform_matrix must be 0, 0, 0, 1, got {numbers[3]}")
    u, _, v = torch.linalg.svd(rotation)
    return from_blender(torch.cat((u @ v, pose[:, 3:]), 1))
