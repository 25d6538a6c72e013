"""How thin a mesh is against a grid, and whether it encloses anything: what decides between the two kinds of field."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sdfgan import ops
from sdfgan.meshes.signed_distance import GroundTruth

_PROBES = 4096  # points of the surface
_LINES = 50_000  # short ones, by whose crossings the area of openings is found
_LINE = 0.02  # their length, of the diagonal
_LADDER = tuple(2.0 ** (k / 2) for k in range(-8, 5))  # depths behind the surface at which is looked, 1/16 to 4 cells
_RESOLVED = 2.0  # cells in the thickness of what marching cubes shows whole
_THINNEST = 0.05  # share of the surface that may be thinner than what counts as resolved
_SHEET = 0.5  # share of the surface, and cells: what is mostly thinner than that is a sheet to the grid
_OPEN = 1 / 3  # share of open sheets, all of which a signed field loses; area of openings, all of which it closes, for
# that of the surface: a hemisphere has 1/2, a cup as deep as wide 1/5
_SAID = 0.05  # share of the surface from which it is said
_FINEST = 2048  # cells along a side of a grid that can be asked for


@dataclass(frozen=True)
class Thinness:
    """Of the part of the surface that is not buried in solids; shares are of its area.

    A place is as thick as the solid behind it, along the normal; where none is behind, it is an open sheet.
    """

    cells: int  # along a side of the grid from -1 to 1
    below_half_cell: float  # share of the surface that bounds a solid thinner than that
    below_one_cell: float
    below_two_cells: float
    resolved_at: int | None  # cells at which 95% of what bounds a solid is two cells thick; None: nothing does
    open: float  # share that bounds none
    openings: float  # area of what closes the holes of the solid, for that of the surface

    @property
    def is_sheet(self) -> bool:
        """Whether an unsigned field says more of it than a signed one."""
        return self.open + self.below_half_cell > _SHEET or max(self.open, self.openings) > _OPEN

    @property
    def has_holes(self) -> bool:
        """Whether marching cubes on that grid leaves holes where a finer one has none."""
        return self.below_one_cell > _SAID

    def as_sheet(self) -> str:
        """What of it is a sheet, in words."""
        if self.openings > _OPEN:
            return f"its openings have {self.openings:.0%} of the area of its surface"
        if self.open > _OPEN:
            return f"{self.open:.0%} of the surface is open"
        thin = f"{self.below_half_cell:.0%} of the surface is thinner than half a cell of the grid of {self.cells}"
        return thin + (f", {self.open:.0%} is open" if self.open > _SAID else "")

    def as_solid(self) -> str:
        """What of it a signed field shows badly, in words; empty where that is next to nothing."""
        parts = []
        if self.below_two_cells > _SAID:
            grid = f"a grid of {self.resolved_at}" if (self.resolved_at or 0) <= _FINEST else "no grid"
            parts.append(
                f"thin: {self.below_one_cell:.0%} of the surface is thinner than a cell of the grid of {self.cells}, "
                f"{self.below_two_cells:.0%} than two; {grid} would resolve all of it"
            )
        if self.open > _SAID:
            parts.append(f"open: {self.open:.0%} of the surface bounds nothing and is lost; --field unsigned keeps it")
        return "; ".join(parts)


def measure_thinness(truth: GroundTruth, cells: int, seed: int = 0) -> Thinness:
    """Look behind 4,096 random points of the surface, by the signs of the mesh's winding numbers.

    Args:
        truth: of a normalised mesh; whether it is signed does not matter.
        cells: along a side of the cube [-1, 1]^3.
    """
    random = torch.Generator(truth.device).manual_seed(seed)
    points, faces = truth.surface(_PROBES, random)
    above, below = truth.winding_at_faces(points, faces)
    seen = ~((above > 0.5) & (below > 0.5))
    points, normals, above, below = (tensor[seen] for tensor in (points, truth.face_normals[faces], above, below))
    # Below and above together the winding number is 1 at what encloses, 0 at a flat sheet; sheets around add to both.
    is_open = ((above > 0.5) == (below > 0.5)) | (above + below < 0.5)
    inwards = torch.where(below > 0.5, -1.0, 1.0)[:, None] * normals
    thickness = _thickness(truth, points[~is_open], inwards[~is_open], 2 / cells)
    thinnest = thickness.sort().values[int(_THINNEST * len(thickness))].item() if len(thickness) else None
    shares = [(thickness < count * 2 / cells).sum().item() / max(len(points), 1) for count in (0.5, 1, 2)]
    return Thinness(
        cells=cells,
        below_half_cell=shares[0],
        below_one_cell=shares[1],
        below_two_cells=shares[2],
        resolved_at=None if thinnest is None else max(cells, math.ceil(_RESOLVED * 2 / thinnest)),
        open=is_open.sum().item() / max(len(points), 1),
        openings=_openings(truth, random, len(points)),
    )


def _thickness(truth: GroundTruth, points: Tensor, inwards: Tensor, cell: float) -> Tensor:
    """[N] depth of the solid behind points, to a factor of 1.2; `inf` where it is deeper than was looked."""
    thickness = torch.full_like(points[:, 0], math.inf)
    left, before = torch.arange(len(points), device=points.device), 0.0
    for depth in _LADDER:
        outside = truth.winding(points[left] + depth * cell * inwards[left]) <= 0.5
        thickness[left[outside]] = (before + depth) / 2 * cell
        left, before = left[~outside], depth
    return thickness


def _openings(truth: GroundTruth, random: torch.Generator, exposed: int) -> float:
    """Area of the places where the sign changes and no face is, for that of the surface that is not buried.

    Of random lines of length l in a volume V, area A is crossed by the share A l / (2 V) (Cauchy).
    """
    if bool(truth.tree.closed):
        return 0.0
    low, high = truth.tree.vertices.amin(0), truth.tree.vertices.amax(0)
    margin = _LINE * truth.diagonal
    size = high - low + 2 * margin
    start = low - margin + size * torch.rand(_LINES, 3, device=truth.device, generator=random, dtype=torch.float32)
    way = torch.nn.functional.normalize(
        torch.randn(_LINES, 3, device=truth.device, generator=random, dtype=torch.float32), dim=1
    )
    first = ops.mesh_distance(truth.tree, start)
    second = ops.mesh_distance(truth.tree, start + margin * way)
    # A face between them would be within the length of the two of them together.
    clear = first.distance.abs() + second.distance.abs() > margin
    crossed = (clear & ((first.winding > 0.5) != (second.winding > 0.5))).double().mean().item()
    area = 2 * crossed * size.prod().item() / margin
    return area / (truth.areas.sum().item() * max(exposed, 1) / _PROBES)
