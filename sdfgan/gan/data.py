"""The images that a run learns from, and those that it is evaluated by."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sdfgan.cameras import Empirical, PoseDistribution
from sdfgan.data.image_sets import Images, InMemory
from sdfgan.data.layouts import open_data
from sdfgan.data.shapes import shape_set
from sdfgan.errors import UserError
from sdfgan.gan.config import ResolvedGanConfig
from sdfgan.training.progress import announced, progress

_LOOKED_AT_FIRST = 64  # images, for their silhouettes
_MAX_OPAQUE = 0.1  # of them may lack one without a word
_MIN_HELD_OUT = 32


class TrainingData(NamedTuple):
    """What a run learns from, and what it is evaluated by."""

    train: Images
    held_out: Images  # 2 M images: two halves
    poses: PoseDistribution | None = None  # of the data set, if they are to be used
    mirror: bool = True  # whether the data set's convention allows it

    @classmethod
    def of(cls, images: Tensor) -> TrainingData:
        """Of images [N, C, R, R] uint8, of which none is held out."""
        return cls(InMemory(images), InMemory(images[:0]))


def load_training_data(config: ResolvedGanConfig, verbose: bool = True) -> TrainingData:
    """The images of a resolved configuration, and those held out. Raises UserError."""
    resolution = max(config.resolutions)
    if config.data is None:
        if config.poses == "data":
            raise UserError("--poses data: the built-in set has none; give --data with poses")
        count = config.dataset_size + 2 * config.evaluate_images
        with progress(count, "making images", shown=verbose) as bar:
            shapes = shape_set(
                count, resolution, family=config.shapes, on_progress=lambda done, _: bar.advance(done - bar.done)
            )
        images = shapes.images
        return TrainingData(InMemory(images[: config.dataset_size]), InMemory(images[config.dataset_size :]))
    with announced(f"reading {config.data}", verbose):
        found = open_data(
            config.data,
            resolution,
            layout=config.data_layout,
            background=config.background,
            cache=config.data_cache,
            label=config.label,
        )
    if found.skipped and verbose:
        names = ", ".join(f"{name} ({reason})" for name, reason in found.skipped[:3])
        more = ", ..." if len(found.skipped) > 3 else ""
        total = len(found.skipped) + len(found.names)
        print(f"{config.data}: {len(found.skipped)} of {total} images skipped: {names}{more}")
    for note in found.notes if verbose else ():
        print(note)
    order = torch.randperm(len(found.images), generator=torch.Generator().manual_seed(0))
    held = min(2 * config.evaluate_images, len(order) // 5) // 2 * 2
    if held < _MIN_HELD_OUT:
        if config.evaluate_images and verbose:
            fewest = f"--evaluate-images {_MIN_HELD_OUT // 2} and {5 * _MIN_HELD_OUT} images"
            print(f"{config.data}: no images are held out to measure distances by: that takes {fewest} at least")
        held = 0
    poses = None
    if config.poses == "data":
        if found.images.poses is None:
            raise UserError(
                f"{config.data}: --poses data, but not every image has a pose (poses.json, transforms.json)"
            )
        poses = Empirical.of(found.images.poses)
    kept, held_out = (found.images.select(part) for part in (order[held:], order[:held]))
    return TrainingData(kept, held_out, poses, found.convention.mirror)


def require_silhouettes(config: ResolvedGanConfig, data: TrainingData, verbose: bool) -> None:
    """Raises UserError where a generator of RGBA would learn from opaque images alone; says where many are."""
    if config.channels == 3 or config.data is None:
        return
    images = data.train
    some = torch.linspace(0, len(images) - 1, min(len(images), _LOOKED_AT_FIRST)).long()
    opaque = int((images.batch(some, min(config.resolutions))[:, 3] == 255).flatten(1).all(1).sum())
    where = "are not on --background" if config.background else "have no silhouette to learn from"
    advice = "give images with alpha, --background R G B where they are on a plain colour, or --channels 3"
    if opaque == len(some):
        raise UserError(f"{config.data}: the images {where}: {advice} to learn from the colours of photographs")
    if verbose and opaque > _MAX_OPAQUE * len(some):
        print(f"{config.data}: {opaque} of {len(some)} images looked at {where}, and count as full squares: {advice}")
