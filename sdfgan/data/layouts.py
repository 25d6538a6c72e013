"""A data set as training takes it: images by index, with the labels and camera poses that its layout brings.

plain      images in a folder (any depth), a zip, a tar or a folder of tars (WebDataset shards)
shapenet   OBJECT/rendering/00.png ...; the label is the object, poses come from rendering_metadata.txt
celeba     plain; the central square of 0.8 of the shorter side, flipped at random
cats       plain; the central square, flipped at random
carla      plain; the central square, never flipped

Labels: dataset.json of StyleGAN ({"labels": [[name, label], ...]}), or NAME.cls beside NAME.png: integers, also written
as 1.0, "1" or one-hot. Poses: poses.json ({name: [elevation, azimuth]} in degrees), transforms.json as NeRF's scenes
have it, or dataset.json of EG3D, whose labels are cameras: 16 numbers of camera to world and 9 of intrinsics.
"""

from __future__ import annotations

import logging
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from sdfgan.cameras import from_blender
from sdfgan.data.archives import NOT_READ, Archive, Entry, open_archive
from sdfgan.data.image_sets import InMemory, OnDisk
from sdfgan.data.images import Colour, decode, decode_all, require_some
from sdfgan.errors import UserError
from sdfgan.training.files import parse_json

_MAX_IN_MEMORY = 4 * 2**30  # bytes of decoded images that data_cache "auto" keeps
Value = TypeVar("Value")
_log = logging.getLogger(__name__)


class Convention(NamedTuple):
    """How a kind of data set is usually prepared."""

    crop: float = 1.0  # side of the central square that is kept, as a share of the shorter side
    mirror: bool = True  # whether a flipped image could be one of the set


CONVENTIONS = {
    "plain": Convention(),
    "shapenet": Convention(),
    "celeba": Convention(crop=0.8),
    "cats": Convention(),
    "carla": Convention(mirror=False),
}


class DataSet(NamedTuple):
    """What was found at a path."""

    images: InMemory | OnDisk
    names: list[str]
    skipped: list[tuple[str, str]]  # names and reasons
    layout: str
    convention: Convention
    notes: list[str]  # what its files say and nothing uses


def open_data(
    path: Path,
    resolution: int,
    *,
    layout: str = "auto",
    background: Colour | None = None,
    cache: str = "auto",
    label: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> DataSet:
    """The images of a folder, zip or tar, decoded now (cache "memory") or whenever they are used ("none").

    Raises UserError where nothing can be read, or where `label` is asked for and there is none.
    """
    archive = open_archive(path)
    if layout == "auto":
        layout = "shapenet" if is_shapenet(archive) else "plain"
    convention = CONVENTIONS[layout]
    crop = crop_of(archive, layout, path)
    entries = archive.images
    labels, notes = read_labels(archive, layout, path)
    if label is not None:
        if not labels:
            why = "; ".join(notes) or "dataset.json or .cls files"
            raise UserError(f"{path}: --label {label}: no labels found ({why})")
        entries = [entry for entry in entries if labels.get(entry.name) == label]
        if not entries:
            raise UserError(f"{path}: no image has the label {label}; there are {sorted(set(labels.values()))[:20]}")
    poses, more = read_poses(archive, path)
    notes += more
    posed = sum(entry.name in poses for entry in entries)
    if 0 < posed < len(entries):
        notes.append(f"{path}: {len(entries) - posed} of {len(entries)} images have no pose, so none is used")

    images: InMemory | OnDisk
    if cache == "auto":
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # of torchrun: each keeps the set
        cache = "memory" if processes * len(entries) * 4 * resolution**2 <= _MAX_IN_MEMORY else "none"
    if cache == "memory":
        decoded, good, skipped = decode_all(
            entries, resolution, background=background, crop=crop, on_progress=on_progress
        )
        entries = [entries[index] for index in good]
        images = InMemory(decoded, _poses_of(entries, poses), _labels_of(entries, labels))
    else:
        skipped = []
        decoder = partial(_decode_or_next, entries, background, crop, set())
        indices = torch.arange(len(entries), device="cpu")
        images = OnDisk(decoder, indices, _poses_of(entries, poses), _labels_of(entries, labels))
    skipped = archive.refused + skipped
    require_some(path, len(entries), skipped)
    return DataSet(images, [entry.name for entry in entries], skipped, layout, convention, notes)


def _decode_or_next(
    entries: list[Entry], background: Colour | None, crop: float, known: set[str], index: int, resolution: int
) -> Tensor:
    """An image [4, R, R], or the next one that can be read; those that cannot are told once, and `known` then."""
    for offset in range(len(entries)):
        entry = entries[(index + offset) % len(entries)]
        found = decode(entry, resolution, background, crop)
        if not isinstance(found, str):
            return torch.from_numpy(found).permute(2, 0, 1)
        if entry.name not in known:
            known.add(entry.name)
            _log.warning("%s: skipped (%s); the next image takes its place", entry.name, found)
    raise UserError("none of the images can be read")


# ------------------------------------------------------------------------------------------------ labels and poses


def crop_of(archive: Archive, layout: str, path: Path) -> float:
    """The crop of a layout; 1 if the images have had theirs."""
    crop = CONVENTIONS[layout].crop
    return crop if crop == 1 or not is_cropped(archive, path) else 1.0


def is_cropped(archive: Archive, path: Path) -> bool:
    """Whether `dataset convert` has cropped the images, as a layout has it, and said so in dataset.json."""
    marks = (_json(entry, path) for name, entry in archive.side.items() if PurePosixPath(name).name == "dataset.json")
    return any(isinstance(mark, dict) and mark.get("cropped") is True for mark in marks)


def is_shapenet(archive: Archive) -> bool:
    """Whether most images are in folders called rendering, as ShapeNet's are."""
    inside = sum(entry.name.split("/")[-2:-1] == ["rendering"] for entry in archive.images)
    return inside > len(archive.images) / 2


def object_of(name: str) -> str:
    """The object that a ShapeNet rendering shows: the folder above rendering/."""
    return PurePosixPath(name).parent.parent.as_posix()


def read_labels(archive: Archive, layout: str, path: Path) -> tuple[dict[str, int], list[str]]:
    """Labels by name of image, and notes; images without one are missing.

    Raises UserError for a malformed dataset.json.
    """
    if layout == "shapenet":
        objects = {name: i for i, name in enumerate(sorted({object_of(entry.name) for entry in archive.images}))}
        return {entry.name: objects[object_of(entry.name)] for entry in archive.images}, []
    labels: dict[str, int] = {}
    strange: dict[str, list[Any]] = {}  # values that are no label, by the file or kind of file they are in
    for name, image, value in _stylegan(archive, path):
        label = _label(value)
        if label is not None:
            _set(labels, image, label, f"{path}: {name}")
        elif _camera(value) is None:
            strange.setdefault(name, []).append(value)
    for name, entry in archive.side.items():
        if name.endswith(".cls"):
            text = _read(entry, path)[:64].decode(errors="replace").strip()
            label = _label(text)
            if label is None:
                strange.setdefault(".cls files", []).append(text)
            else:
                for image in archive.by_stem.get(name.removesuffix(".cls"), [name]):
                    _set(labels, image, label, f"{path}: {name}")
    notes = [
        f'{path}: {name}: has no {{"labels": [[name, label], ...]}}: not used'
        for name, entry in archive.side.items()
        if PurePosixPath(name).name == "dataset.json" and not _has_labels(_json(entry, path))
    ]
    notes += [
        f"{path}: {name}: {len(values)} labels are not integers: left out, the first: {str(values[0])[:40]}"
        for name, values in strange.items()
    ]
    labels = _of_images("labels", labels, archive, path, notes)
    if 0 < len(labels) < len(archive.images):
        notes.append(f"{path}: {len(archive.images) - len(labels)} of {len(archive.images)} images have no label")
    return labels, notes


def read_poses(archive: Archive, path: Path) -> tuple[dict[str, tuple[float, float]], list[str]]:
    """(elevation, azimuth) in radians by name of image, and notes. Raises UserError for malformed files."""
    poses: dict[str, tuple[float, float]] = {}
    notes: list[str] = []
    cameras: dict[str, tuple[float, float, float]] = {}
    for name, image, value in _stylegan(archive, path):
        if camera := _camera(value):
            _set(cameras, image, camera, f"{path}: {name}")
    if cameras:
        fovs = [math.degrees(camera[2]) for camera in cameras.values()]
        said = f"{min(fovs):.4g}" if max(fovs) - min(fovs) < 0.05 else f"{min(fovs):.4g} to {max(fovs):.4g}"
        notes.append(
            f"{path}: {len(cameras)} labels are cameras: their directions are used as poses, their field of view "
            f"({said} degrees) is for --fov, their distance, aim and roll are not used"
        )
        poses |= {image: camera[:2] for image, camera in cameras.items()}
    for name, entry in archive.side.items():
        folder, base = PurePosixPath(name).parent, PurePosixPath(name).name
        if base == "poses.json":
            values = _json(entry, path)
            if not isinstance(values, dict):
                raise UserError(f"{path}: {name}: expected {{image: [elevation, azimuth], ...}} in degrees")
            for image, angles in values.items():
                if not isinstance(angles, list) or len(angles) != 2 or not all(map(_finite, angles)):
                    raise UserError(f"{path}: {name}: {image}: expected [elevation, azimuth] in degrees")
                poses[_slashes(folder, image)] = (math.radians(angles[0]), math.radians(angles[1]))
        elif base.startswith("transforms") and base.endswith(".json"):
            poses |= _transforms(entry, archive, folder, path)
        elif base == "rendering_metadata.txt":
            for index, line in enumerate(_read(entry, path).decode(errors="replace").splitlines()):
                numbers = line.split()
                if len(numbers) >= 2 and all(map(_is_number, numbers[:2])):
                    angles = math.radians(float(numbers[1])), math.radians(float(numbers[0]))
                    poses[(folder / f"{index:02d}.png").as_posix()] = angles
    others = [name for name in archive.side if name.lower().endswith(NOT_READ)]
    if others:
        kinds = ", ".join(sorted({PurePosixPath(name).suffix.lower() for name in others}))
        notes.append(f"{path}: not read: {len(others)} images ({kinds}): convert them to PNG; the first: {others[0]}")
    unused = [name for name in archive.side if name not in others and not _is_read(PurePosixPath(name).name)]
    if unused:
        notes.append(f"{path}: not used: {len(unused)} files beside the images, the first: {unused[0]}")
    return _of_images("poses", poses, archive, path, notes), notes


def _is_read(base: str) -> bool:
    """Whether labels or poses are read from files of this name."""
    known = ("dataset.json", "poses.json", "rendering_metadata.txt")
    return base in known or base.endswith(".cls") or (base.startswith("transforms") and base.endswith(".json"))


def _has_labels(values: Any) -> bool:
    return isinstance(values, dict) and "labels" in values


def _stylegan(archive: Archive, path: Path) -> Iterator[tuple[str, str, Any]]:
    """File, image and value of each label in a dataset.json."""
    for file, entry in archive.side.items():
        if PurePosixPath(file).name != "dataset.json":
            continue
        pairs = _json(entry, path)
        pairs = pairs.get("labels") if isinstance(pairs, dict) else None
        if pairs is None:
            continue
        if not isinstance(pairs, list) or not all(isinstance(p, list) and len(p) == 2 for p in pairs):
            raise UserError(f'{path}: {file}: expected {{"labels": [[name, label], ...]}}')
        for given, value in pairs:
            name = _slashes(PurePosixPath(file).parent, str(given))
            for image in [name] if name in archive.names else archive.by_stem.get(name.rsplit(".", 1)[0], [name]):
                yield file, image, value


def _slashes(folder: PurePosixPath, name: str) -> str:
    return (folder / name.replace("\\", "/")).as_posix()


def _label(value: Any) -> int | None:
    """The integer that a label is, also as 1.0, "1", [1] or one-hot; None for anything else."""
    if isinstance(value, str):
        return (
            int(value) if re.fullmatch("-?[0-9]{1,18}", value) else _label(float(value)) if _is_number(value) else None
        )
    if isinstance(value, list):
        if len(value) == 1:
            return _label(value[0])
        if value.count(1) == 1 and value.count(0) == len(value) - 1:
            return value.index(1)
        return None
    return int(value) if _finite(value) and value == int(value) and abs(value) < 2**62 else None


def _camera(value: Any) -> tuple[float, float, float] | None:
    """Elevation, azimuth and field of view in radians of a label of EG3D; None for anything else.

    That is camera to world [4, 4] (x right, y down, z forward, in a world whose y is up) and intrinsics [3, 3] for a
    image of side 1. The camera is taken to look at the origin, as those of this package do.
    """
    if not isinstance(value, list) or len(value) != 25 or not all(map(_finite, value)):
        return None
    numbers = torch.tensor(value, dtype=torch.float64, device="cpu")
    pose, intrinsics = numbers[:16].view(4, 4), numbers[16:].view(3, 3)
    rotation, position, focal = pose[:3, :3], pose[:3, 3], intrinsics[1, 1].item()
    skew = (rotation.T @ rotation - torch.eye(3, device="cpu")).abs().max()
    is_rotation = skew < 0.02 and torch.linalg.det(rotation) > 0
    if not is_rotation or pose[3].tolist() != [0, 0, 0, 1] or not position.norm() > 1e-6 or not focal > 0:
        return None
    elevation, azimuth = _angles(position)
    return elevation, azimuth, 2 * math.atan(0.5 / focal)


def _angles(position: Tensor) -> tuple[float, float]:
    """Elevation and azimuth of a position [3] of any length, y up."""
    position = position / position.abs().max()  # whose square may be no number
    return torch.asin(position[1] / position.norm()).item(), torch.atan2(position[0], position[2]).item()


def _of_images(what: str, values: dict[str, Value], archive: Archive, path: Path, notes: list[str]) -> dict[str, Value]:
    """Those whose names are names of images; a note says which are not."""
    strange = [name for name in values if name not in archive.names]
    if strange:
        notes.append(f"{path}: {len(strange)} {what} belong to no image, the first: {strange[0]}")
    return {name: value for name, value in values.items() if name in archive.names}


def _transforms(entry: Entry, archive: Archive, folder: PurePosixPath, path: Path) -> dict[str, tuple[float, float]]:
    values = _json(entry, path)
    frames = values.get("frames") if isinstance(values, dict) else None
    if not isinstance(frames, list):
        raise UserError(f"{path}: {entry.name}: not transforms of a NeRF scene: frames must be a list")
    poses: dict[str, tuple[float, float]] = {}
    for index, frame in enumerate(frames):
        where, frame = f"{path}: {entry.name}: frame {index}", frame if isinstance(frame, dict) else {}
        name, rows = frame.get("file_path"), frame.get("transform_matrix")
        if not isinstance(name, str):
            raise UserError(f"{where}: file_path must be a text")
        rows = rows if isinstance(rows, list) and all(isinstance(row, list) and len(row) == 4 for row in rows) else []
        if len(rows) not in (3, 4) or not all(_finite(value) for row in rows for value in row):
            raise UserError(f"{where}: transform_matrix must be 4 rows of 4 numbers")
        angles = _angles(from_blender(torch.tensor(rows, dtype=torch.float64, device="cpu"))[:, 3])
        if not all(map(math.isfinite, angles)):
            raise UserError(f"{where}: the camera is at the origin, or too far away: its direction is not known")
        name = _slashes(folder, name)
        for image in archive.by_stem.get(name, [name]):
            _set(poses, image, angles, where)
    return poses


def _set(values: dict[str, Value], image: str, value: Value, where: str) -> None:
    """Raises UserError where the image has another value already."""
    if values.setdefault(image, value) != value:
        raise UserError(f"{where}: {image} has {values[image]} already, and now {value}")


def _read(entry: Entry, path: Path) -> bytes:
    try:
        return entry.read()
    except Exception as error:  # readers of archives raise almost anything on damaged data
        raise UserError(f"{path}: {entry.name}: cannot be read: {error}") from error


def _json(entry: Entry, path: Path) -> Any:
    try:
        return parse_json(_read(entry, path))
    except ValueError as error:
        raise UserError(f"{path}: {entry.name}: not JSON: {error}") from error


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # integers may be longer


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _labels_of(entries: list[Entry], labels: dict[str, int]) -> Tensor | None:
    return torch.tensor([labels.get(entry.name, -1) for entry in entries], device="cpu") if labels else None


def _poses_of(entries: list[Entry], poses: dict[str, tuple[float, float]]) -> Tensor | None:
    """[N, 2], or None unless every image has a pose."""
    if not entries or not all(entry.name in poses for entry in entries):
        return None
    return torch.tensor([poses[entry.name] for entry in entries], dtype=torch.float32, device="cpu")
