"""A data set as training takes it: pictures by index, with the labels and camera poses that its layout brings.

plain      pictures in a folder (any depth), a zip, a tar or a folder of tars (WebDataset shards)
shapenet   OBJECT/rendering/00.png ...; the label is the object, poses come from rendering_metadata.txt
celeba     plain; the central square of 0.8 of the shorter side, flipped at random
cats       plain; the central square, flipped at random
carla      plain; the central square, never flipped

Labels: dataset.json of StyleGAN ({"labels": [[name, label], ...]}), or NAME.cls beside NAME.png. Poses: poses.json
({name: [elevation, azimuth]} in degrees), or transforms.json as NeRF's scenes have it.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdfgan.cameras import from_blender
from sdfgan.data.archives import Archive, Entry, open_archive
from sdfgan.data.images import Colour, decode, decode_all, require_some
from sdfgan.data.pictures import InMemory, OnDisk
from sdfgan.errors import UserError

_MOST_IN_MEMORY = 4 * 2**30  # bytes of decoded pictures that data_cache "auto" keeps
_log = logging.getLogger(__name__)


class Convention(NamedTuple):
    """How a kind of data set is usually prepared."""

    crop: float = 1.0  # side of the central square that is kept, as a share of the shorter side
    mirror: bool = True  # whether a flipped picture could be one of the set


CONVENTIONS = {
    "plain": Convention(),
    "shapenet": Convention(),
    "celeba": Convention(crop=0.8),
    "cats": Convention(),
    "carla": Convention(mirror=False),
}


class DataSet(NamedTuple):
    """What was found at a path."""

    pictures: InMemory | OnDisk
    names: list[str]
    skipped: list[tuple[str, str]]  # names and reasons
    layout: str
    convention: Convention


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
    """The pictures of a folder, zip or tar, decoded now (cache "memory") or whenever they are used ("none").

    Raises UserError where nothing can be read, or where `label` is asked for and there is none.
    """
    archive = open_archive(path)
    if layout == "auto":
        layout = "shapenet" if is_shapenet(archive) else "plain"
    convention = CONVENTIONS[layout]
    crop = crop_of(archive, layout, path)
    entries = archive.pictures
    labels = read_labels(archive, layout, path)
    if label is not None:
        if not labels:
            raise UserError(f"{path}: --label {label}: no labels found (dataset.json or .cls files)")
        entries = [entry for entry in entries if labels.get(entry.name) == label]
        if not entries:
            raise UserError(f"{path}: no picture has the label {label}; there are {sorted(set(labels.values()))[:20]}")
    poses = read_poses(archive, path)

    pictures: InMemory | OnDisk
    if cache == "auto":
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # of torchrun: each keeps the set
        cache = "memory" if processes * len(entries) * 4 * resolution**2 <= _MOST_IN_MEMORY else "none"
    if cache == "memory":
        images, good, skipped = decode_all(
            entries, resolution, background=background, crop=crop, on_progress=on_progress
        )
        entries = [entries[index] for index in good]
        pictures = InMemory(images, _poses_of(entries, poses), _labels_of(entries, labels))
    else:
        skipped = []
        decoder = partial(_decode_or_next, entries, background, crop, set())
        indices = torch.arange(len(entries))
        pictures = OnDisk(decoder, indices, _poses_of(entries, poses), _labels_of(entries, labels))
    skipped = archive.refused + skipped
    require_some(path, len(entries), skipped)
    return DataSet(pictures, [entry.name for entry in entries], skipped, layout, convention)


def _decode_or_next(
    entries: list[Entry], background: Colour | None, crop: float, known: set[str], index: int, resolution: int
) -> Tensor:
    """A picture [4, R, R], or the next one that can be read; those that cannot are told once, and `known` then."""
    for offset in range(len(entries)):
        entry = entries[(index + offset) % len(entries)]
        found = decode(entry, resolution, background, crop)
        if not isinstance(found, str):
            return torch.from_numpy(found).permute(2, 0, 1)
        if entry.name not in known:
            known.add(entry.name)
            _log.warning("%s: skipped (%s); the next picture takes its place", entry.name, found)
    raise UserError("none of the pictures can be read")


# ------------------------------------------------------------------------------------------------ labels and poses


def crop_of(archive: Archive, layout: str, path: Path) -> float:
    """The crop of a layout; 1 if the pictures have had theirs."""
    crop = CONVENTIONS[layout].crop
    return crop if crop == 1 or not is_cropped(archive, path) else 1.0


def is_cropped(archive: Archive, path: Path) -> bool:
    """Whether `dataset convert` has cropped the pictures, as a layout has it, and said so in dataset.json."""
    marks = (_json(entry, path) for name, entry in archive.side.items() if PurePosixPath(name).name == "dataset.json")
    return any(isinstance(mark, dict) and mark.get("cropped") is True for mark in marks)


def is_shapenet(archive: Archive) -> bool:
    """Whether most pictures are in folders called rendering, as ShapeNet's are."""
    parents = [PurePosixPath(entry.name).parent.name for entry in archive.pictures]
    return bool(parents) and parents.count("rendering") > len(parents) / 2


def object_of(name: str) -> str:
    """The object that a ShapeNet rendering shows: the folder above rendering/."""
    return PurePosixPath(name).parent.parent.as_posix()


def read_labels(archive: Archive, layout: str, path: Path) -> dict[str, int]:
    """Labels by name of picture; pictures without one are missing. Raises UserError for a malformed dataset.json."""
    if layout == "shapenet":
        objects = {name: i for i, name in enumerate(sorted({object_of(entry.name) for entry in archive.pictures}))}
        return {entry.name: objects[object_of(entry.name)] for entry in archive.pictures}
    labels: dict[str, int] = {}
    pictures = _by_stem(archive)
    for name, entry in archive.side.items():
        folder = PurePosixPath(name).parent
        if PurePosixPath(name).name == "dataset.json":
            pairs = _json(entry, path)
            pairs = pairs.get("labels") if isinstance(pairs, dict) else None
            if pairs is None:
                continue
            if not isinstance(pairs, list) or not all(isinstance(p, list) and len(p) == 2 for p in pairs):
                raise UserError(f'{path}: {name}: expected {{"labels": [[name, label], ...]}}')
            labels |= {(folder / str(name)).as_posix(): label for name, label in pairs if type(label) is int}
        elif name.endswith(".cls"):
            text = entry.read()[:32].strip()
            if text.isdigit():
                labels[pictures.get(name.removesuffix(".cls"), name)] = int(text)
    return labels


def read_poses(archive: Archive, path: Path) -> dict[str, tuple[float, float]]:
    """(elevation, azimuth) in radians by name of picture. Raises UserError for malformed files."""
    poses: dict[str, tuple[float, float]] = {}
    for name, entry in archive.side.items():
        folder, base = PurePosixPath(name).parent, PurePosixPath(name).name
        if base == "poses.json":
            values = _json(entry, path)
            if not isinstance(values, dict):
                raise UserError(f"{path}: {name}: expected {{picture: [elevation, azimuth], ...}} in degrees")
            for picture, angles in values.items():
                if not isinstance(angles, list) or len(angles) != 2 or not all(map(_finite, angles)):
                    raise UserError(f"{path}: {name}: {picture}: expected [elevation, azimuth] in degrees")
                poses[(folder / picture).as_posix()] = (math.radians(angles[0]), math.radians(angles[1]))
        elif base.startswith("transforms") and base.endswith(".json"):
            poses |= _transforms(entry, archive, folder, path)
        elif base == "rendering_metadata.txt":
            for index, line in enumerate(entry.read().decode(errors="replace").splitlines()):
                numbers = line.split()
                if len(numbers) >= 2 and all(map(_is_number, numbers[:2])):
                    angles = math.radians(float(numbers[1])), math.radians(float(numbers[0]))
                    poses[(folder / f"{index:02d}.png").as_posix()] = angles
    return poses


def _transforms(entry: Entry, archive: Archive, folder: PurePosixPath, path: Path) -> dict[str, tuple[float, float]]:
    values = _json(entry, path)
    try:
        poses, pictures = {}, _by_stem(archive)
        for frame in values["frames"]:
            position = from_blender(torch.tensor(frame["transform_matrix"], dtype=torch.float64))[:, 3]
            elevation = torch.asin(position[1] / position.norm()).item()
            azimuth = torch.atan2(position[0], position[2]).item()
            name = (folder / frame["file_path"]).as_posix()
            poses[name if PurePosixPath(name).suffix else pictures.get(name, name)] = (elevation, azimuth)
        return poses
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: {entry.name}: not transforms of a NeRF scene: {error}") from error


def _by_stem(archive: Archive) -> dict[str, str]:
    """The names of pictures by the same without their suffixes."""
    return {entry.name.rsplit(".", 1)[0]: entry.name for entry in archive.pictures}


def _json(entry: Entry, path: Path) -> Any:
    try:
        return json.loads(entry.read())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: {entry.name}: not JSON: {error}") from error


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _labels_of(entries: list[Entry], labels: dict[str, int]) -> Tensor | None:
    return torch.tensor([labels.get(entry.name, -1) for entry in entries]) if labels else None


def _poses_of(entries: list[Entry], poses: dict[str, tuple[float, float]]) -> Tensor | None:
    """[N, 2], or None unless every picture has a pose."""
    if not entries or not all(entry.name in poses for entry in entries):
        return None
    return torch.tensor([poses[entry.name] for entry in entries])
