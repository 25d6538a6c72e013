"""What training starts from: a mesh with its truth, or a file of samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from sdfgan.errors import UserError, one_line
from sdfgan.meshes.normalise import Placement, normalise
from sdfgan.meshes.read import READ_SUFFIXES, read_mesh
from sdfgan.meshes.repair import RepairReport, repair
from sdfgan.meshes.signed_distance import GroundTruth
from sdfgan.meshes.thinness import Thinness, measure_thinness
from sdfgan.sdf.config import ResolvedSdfConfig
from sdfgan.sdf.model import MESH, MODEL
from sdfgan.sdf.sampling import Samples, SampleStream

SAMPLE_SUFFIX = ".npz"
_ARRAYS = ("points", "distances", "sdf", "weights", "normals", "pos", "neg")
_LARGEST = 2**32  # bytes of them
_IN_MEMORY = 2**23  # samples that are kept instead of drawn again, 270 MB


class Stream(Protocol):
    """What training takes its samples from; see `sampling.SampleStream`."""

    def __len__(self) -> int: ...
    def epoch(self, number: int, batch_size: int) -> Iterator[Samples]:
        """Batches, the last one smaller, in an order that `number` decides."""


@dataclass(frozen=True)
class Case:
    """One thing to learn."""

    path: Path
    folder: Path  # of its run
    stream: Stream
    truth: GroundTruth | None  # None for a file of samples
    placement: Placement
    report: RepairReport | None
    thinness: Thinness | None  # None for a file of samples
    why_unsigned: str | None  # in words, why an unsigned field is learnt; None: a signed one is

    @property
    def unsigned(self) -> bool:
        """What is learnt."""
        return self.why_unsigned is not None


def find_inputs(path: Path, output: Path | None = None) -> tuple[list[Path], bool]:
    """The files that `path` means, in order, and whether it is a folder of them. Raises UserError.

    What is in `output`, a folder in `path`, and meshes that lie beside the model that they were made from do not count.
    """
    suffixes = (*READ_SUFFIXES, SAMPLE_SUFFIX)
    if not path.is_dir():
        return [path], False
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.is_file())
    if output is not None and path.resolve() in output.resolve().parents:
        found = [file for file in found if not file.parent.resolve().is_relative_to(output.resolve())]
    found = [file for file in found if file.stem != MESH or not (file.parent / MODEL).exists()]
    if not found:
        raise UserError(f"{path}: a folder without meshes ({', '.join(suffixes)})")
    return found, True


def open_case(config: ResolvedSdfConfig, path: Path, folder: Path) -> Case:
    """Read, repair, normalise and make ready to sample. Raises UserError, naming the file."""
    device = torch.device(config.device)
    if path.suffix.lower() == SAMPLE_SUFFIX:
        samples, placement = read_samples(path)
        if config.normal_weight and not samples.normals.any():
            raise UserError(f"{path}: holds no normals [N, 3], which --normal-weight needs")
        if config.texture_resolution:
            require_colours(path)
        why = _why_unsigned(config, "" if (samples.distances < 0).any() else "no distance is negative")
        if why:
            samples = samples._replace(distances=samples.distances.abs())
        held = HeldSamples(Samples(*(tensor.to(device) for tensor in samples)), config.seed)
        return Case(path, folder, held, None, placement, None, None, why)
    mesh, report = repair(read_mesh(path), str(path))
    try:
        mesh, placement = normalise(mesh, config.normalise)
        truth = GroundTruth(mesh, device=device)
        thinness = measure_thinness(truth, config.finest_shown)
        why = _why_unsigned(config, thinness.as_sheet() if thinness.is_sheet else "")
        truth = truth.as_unsigned() if why else truth
        stream = SampleStream(
            truth, config.num_points, config.sampling, beta=config.beta, seed=config.seed, in_memory=_IN_MEMORY
        )
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return Case(path, folder, stream, truth, placement, report, thinness, why)


def require_colours(path: Path) -> None:
    """Raises UserError for a file that can have none, for a texture."""
    if path.suffix.lower() == SAMPLE_SUFFIX:
        raise UserError(f"{path}: holds samples without colours, of which --texture-resolution makes no texture")


def _why_unsigned(config: ResolvedSdfConfig, sheet: str) -> str | None:
    """In words, why an unsigned field is learnt, if it is; `sheet` says why the shape is one, if it is.

    The settings of a run that goes on have what `auto` chose by that.
    """
    if config.field == "unsigned" and not (sheet and config.resume):
        return "as asked"
    return sheet or None if config.sheet_allowed or config.field == "unsigned" else None


class HeldSamples:
    """Samples from a file, in another order in each epoch."""

    def __init__(self, samples: Samples, seed: int) -> None:
        self.samples, self.seed = samples, seed

    def __len__(self) -> int:
        return len(self.samples.points)

    def epoch(self, number: int, batch_size: int) -> Iterator[Samples]:
        """Batches, the last one smaller; the order is decided by `number`."""
        random = torch.Generator().manual_seed(1_000_003 * self.seed + number)
        order = torch.randperm(len(self), generator=random).to(self.samples.points.device)
        for part in order.split(batch_size):
            yield self.samples.rows(part)


def read_samples(path: Path) -> tuple[Samples, Placement]:
    """Samples of an .npz, moved into the cube if they are not in it, and how.

    It holds points [N, 3] and distances [N] (or sdf), perhaps weights [N] and normals [N, 3]; or pos and neg [N, 4],
    points with their distances, as DeepSDF's. Rows that are not finite in float32 are dropped. Raises UserError.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            members = [info for info in file.zip.infolist() if info.filename in {f"{name}.npy" for name in _ARRAYS}]
            claimed = sum(info.file_size for info in members)
            if claimed > _LARGEST:
                raise UserError(f"{path}: claims {claimed:,} bytes of samples; at most {_LARGEST:,} are read")
            arrays = {info.filename[:-4]: file[info.filename] for info in members}
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # a damaged zip raises almost anything
        raise UserError(f"{path}: not a readable .npz of numbers: {one_line(error)[:200]}") from error
    try:
        if {"pos", "neg"} <= arrays.keys():
            rows = np.concatenate([arrays["pos"], arrays["neg"]]).astype(np.float64)
            points, distances = rows[:, :3], rows[:, 3]
        else:
            points = arrays["points"].astype(np.float64)
            distances = arrays["distances" if "distances" in arrays else "sdf"].astype(np.float64).reshape(-1)
        weights = arrays.get("weights", np.ones(len(points))).astype(np.float64).reshape(-1)
        normals = arrays.get("normals", np.zeros((len(points), 3))).astype(np.float64)
    except (AttributeError, KeyError, IndexError, ValueError, TypeError) as error:
        raise UserError(
            f"{path}: expected points [N, 3] and distances [N], or pos and neg [N, 4], got {error}"
        ) from error
    shapes = (points.shape, distances.shape, weights.shape, normals.shape)
    count = len(points)
    if shapes != ((count, 3), (count,), (count,), (count, 3)):
        raise UserError(f"{path}: expected points [N, 3] and distances [N], got shapes {', '.join(map(str, shapes))}")
    with np.errstate(over="ignore"):
        finite = np.isfinite(np.column_stack([points, distances, weights, normals]).astype(np.float32)).all(1)
    if finite.sum() < 2:
        raise UserError(f"{path}: expected at least two finite samples, got {finite.sum()} of {count}")
    points, distances, weights, normals = (a[finite] for a in (points, distances, weights, normals))
    low, high = points.min(0), points.max(0)
    if not (high > low).any():
        raise UserError(f"{path}: all {len(points)} points are one")
    placement = Placement((0.0, 0.0, 0.0), 1.0)
    if np.abs(points).max() > 1:
        placement = Placement(tuple(((low + high) / 2).tolist()), float(2 / (high - low).max()))
    arrays_ = (placement.normalised(points), distances * placement.scale, weights, normals)
    samples = Samples(*(torch.from_numpy(np.ascontiguousarray(a)).float() for a in arrays_))
    if not samples.distances.isfinite().all():
        raise UserError(f"{path}: its distances, {np.abs(distances).max():g} at most, are too large for its points")
    return samples, placement
