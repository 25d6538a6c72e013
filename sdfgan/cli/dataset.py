"""`sdfgan dataset`: checks, previews and converts sets of images."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from sdfgan.cli.arguments import output_path
from sdfgan.cli.flags import CheckConfig, ConvertConfig, DatasetFlags, PreviewConfig
from sdfgan.data.archives import Archive, Entry, open_archive
from sdfgan.data.convert import dataset_json, encode, image_name, writer
from sdfgan.data.images import decode, require_some
from sdfgan.data.layouts import crop_of, is_cropped, is_shapenet, object_of, read_labels, read_poses
from sdfgan.errors import UserError
from sdfgan.images import image_grid, on_white, save_image
from sdfgan.training.progress import announced, progress

_BAD_SHOWN = 20
_AT_ONCE = 256


class _Set(NamedTuple):
    """What there is in a data set."""

    archive: Archive
    entries: list[Entry]  # those that are wanted
    layout: str
    crop: float
    labels: dict[str, int]  # by name
    poses: dict[str, tuple[float, float]]  # likewise


def run(config: DatasetFlags) -> None:
    """Do it, and say what came of it. A set without a readable image is an error."""
    with announced(f"reading {config.data}"):
        archive = open_archive(config.data)
    layout = config.layout if config.layout != "auto" else "shapenet" if is_shapenet(archive) else "plain"
    require_some(config.data, len(archive.images), archive.refused)
    entries = _chosen(config, archive, layout)
    labels, notes = read_labels(archive, layout, config.data)
    poses, more = read_poses(archive, config.data)
    for note in notes + more:
        print(note)
    data = _Set(archive, entries, layout, crop_of(archive, layout, config.data), labels, poses)
    if isinstance(config, ConvertConfig):
        _convert(config, data)
    elif isinstance(config, PreviewConfig):
        _preview(config, data)
    elif isinstance(config, CheckConfig):
        _check(config, data)


def _chosen(config: DatasetFlags, archive: Archive, layout: str) -> list[Entry]:
    """The images that are wanted; random choices are without replacement."""
    random = np.random.default_rng(config.seed)
    entries = archive.images
    if config.views_per_object:
        if layout != "shapenet":
            raise UserError("--views-per-object is for the shapenet layout (OBJECT/rendering/00.png ...)")
        objects: dict[str, list[Entry]] = {}
        for entry in entries:
            objects.setdefault(object_of(entry.name), []).append(entry)
        entries = []
        for views in objects.values():
            size = min(config.views_per_object, len(views))
            entries += [views[i] for i in sorted(random.choice(len(views), size, replace=False))]
    if config.max_images is not None and config.max_images < len(entries):
        entries = [entries[i] for i in sorted(random.choice(len(entries), config.max_images, replace=False))]
    return entries


def _images(config: DatasetFlags, data: _Set) -> Iterator[tuple[Entry, np.ndarray | str]]:
    """Each entry with its image, or the reason why there is none; a few are decoded ahead."""
    Image.init()  # loads the decoders here, once, rather than in every thread
    entries = data.entries
    with progress(len(entries), config.action) as bar, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:

        def read(entry: Entry) -> np.ndarray | str:
            return decode(entry, config.resolution, config.background, data.crop)

        for start in range(0, len(entries), _AT_ONCE):
            group = entries[start : start + _AT_ONCE]
            for entry, found in zip(group, pool.map(read, group), strict=True):
                yield entry, found
                bar.advance()


def _check(config: CheckConfig, data: _Set) -> None:
    labels, poses = data.labels, data.poses
    bad, coverage, opaque = list(data.archive.refused), [], 0
    digests: Counter[bytes] = Counter()
    for entry, found in _images(config, data):
        if isinstance(found, str):
            bad.append((entry.name, found))
        else:
            alpha = found[..., 3]
            opaque += int((alpha == 255).all())
            coverage.append(alpha.mean() / 255)
            digests[hashlib.sha256(found.tobytes()).digest()] += 1
    for name, reason in bad[:_BAD_SHOWN]:
        print(f"bad: {name}: {reason}")
    if len(bad) > _BAD_SHOWN:
        print(f"and {len(bad) - _BAD_SHOWN} more")
    good = len(coverage)
    require_some(config.data, good, bad)
    duplicates = sum(count - 1 for count in digests.values())
    print(f"layout {data.layout}; {good} good images, {len(bad)} bad, {duplicates} duplicates; {opaque} without alpha")
    if opaque < good:
        empty = sum(value < 0.002 for value in coverage)
        print(f"alpha covers {np.mean(coverage):.3f} of an image (minimum {min(coverage):.3f}), {empty} are empty")
    if opaque:
        which = "no image has" if opaque == good else f"{opaque} of {good} images do not have"
        what = "alpha" if config.background is None else "alpha or that --background"
        print(
            f"{which} {what}: train with --background R G B if their background is plain, otherwise with --channels 3"
        )
    if labels:
        print(f"{len(labels)} labels, {len(set(labels.values()))} different")
    if poses:
        elevation, azimuth = (np.degrees([pose[i] for pose in poses.values()]) for i in (0, 1))
        spans = [
            f"{name} {v.min():.1f} to {v.max():.1f}" for name, v in (("elevation", elevation), ("azimuth", azimuth))
        ]
        print(f"{len(poses)} poses: {', '.join(spans)} degrees")
    if config.strict and bad:
        raise UserError(f"{config.data}: {len(bad)} of {len(bad) + good} images are bad")
    print(f"checked {config.data}: {'good' if not bad else 'the bad images will be left out'}")


def _preview(config: PreviewConfig, data: _Set) -> None:
    output = output_path(config.output, Path("preview.png"))
    if output.suffix.lower() not in (".png", ".jpg") or output.exists():
        raise UserError(f"{output}: {'exists; ' if output.exists() else ''}name a new .png or .jpg")
    found = [image for _, image in _images(config, data) if not isinstance(image, str)]
    require_some(config.data, len(found), [])
    images = torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 255
    save_image(output, image_grid(on_white(images), math.ceil(math.sqrt(len(found))), fill=1.0))
    print(f"wrote {len(found)} images to {output}")


def _convert(config: ConvertConfig, data: _Set) -> None:
    cropped = data.crop < 1 or is_cropped(data.archive, config.data)
    labels, poses = data.labels, data.poses
    written: dict[str, str] = {}
    bad = list(data.archive.refused)
    with writer(config.output) as write:
        for entry, found in _images(config, data):
            if isinstance(found, str):
                bad.append((entry.name, found))
            else:
                name = image_name(len(written))
                write(name, encode(found))
                written[name] = entry.name
        require_some(config.data, len(written), bad)
        kept_labels: dict[str, Any] = {name: labels[old] for name, old in written.items() if old in labels}
        if kept_labels or cropped:
            write("dataset.json", dataset_json(kept_labels, cropped))
        kept_poses = {n: [math.degrees(a) for a in poses[old]] for n, old in written.items() if old in poses}
        if kept_poses:
            write("poses.json", json.dumps(kept_poses).encode())
    for name, reason in bad[:_BAD_SHOWN]:
        print(f"left out: {name}: {reason}")
    print(f"wrote {len(written)} images of {config.resolution} px to {config.output}, left out {len(bad)}")
