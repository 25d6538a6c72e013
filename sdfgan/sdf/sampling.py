"""Training points of a signed-distance field, with their distances and normals.

All kinds draw independent points, none twice, in the cube [-1, 1]^3, which holds a normalised mesh.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sdfgan.meshes.signed_distance import GroundTruth

KINDS = ("mixed", "importance", "surface", "uniform", "curvature")
BETA = 30.0  # of exp(-beta |s|), as Davies et al. have it ("On the Effectiveness of Weight-Encoded Neural Implicit 3D
# Shapes", 2020)
_AT_ONCE = 2**21  # draws
_PROBES = 2**17  # draws that find the share that is accepted
_COARSEST, _MAX_CELLS = 16, 2**20  # cells along a side at first, cells in all


class Samples(NamedTuple):
    """N points in [-1, 1]^3, all tensors float32 on the device of the truth.

    The weighted mean of any function over the points is its mean over the cube, for the kinds `importance`, `mixed` and
    `uniform`, whose density is known: weights are the uniform density over that of the sampling, about 1 in the mean.
    Weights of `surface` and `curvature` are 1.
    """

    points: Tensor  # [N, 3]
    distances: Tensor  # [N] signed, negative inside
    weights: Tensor  # [N]
    normals: Tensor  # [N, 3] unit gradient of the distance

    def rows(self, which: slice | Tensor) -> Samples:
        """Some of them: a slice, a mask or a tensor of indices."""
        if isinstance(which, Tensor) and which.dtype == torch.int64:  # a third of the time
            return Samples(*(tensor.index_select(0, which) for tensor in self))
        return Samples(*(tensor[which] for tensor in self))


def sample(
    truth: GroundTruth,
    count: int,
    kind: str = "mixed",
    *,
    beta: float = BETA,
    noise: float = 0.02,
    generator: torch.Generator | None = None,
) -> Samples:
    """Draw `count` independent samples.

    Args:
        kind: `uniform` in the cube; `importance`: of a density proportional to exp(-beta |s|), s the signed distance;
            `mixed`: a tenth uniform, half importance, the rest importance with five times beta, all of them as they
            are at the centres of small cells, so that no draw is lost; `surface`: points of the surface, uniform by
            area, moved by normal noise; `curvature`: those, but denser where it bends.
        noise: standard deviation along each axis, for `surface` and `curvature`.
        generator: of the device of `truth`; the same seed gives the same samples.

    Raises ValueError for another kind, a negative count, beta or noise.
    """
    return Sampler(truth, kind, beta=beta, noise=noise)(count, generator)


class Sampler:
    """Draws samples of one kind of one truth; see `sample`. Making one takes as long as some 100,000 samples.

    Densities that fall with |s| are those of cells of an octree, finer near the surface. `importance` is drawn exactly,
    by rejection: its cells bound the density, since a distance changes by at most the way gone.
    """

    def __init__(self, truth: GroundTruth, kind: str = "mixed", *, beta: float = BETA, noise: float = 0.02) -> None:
        if kind not in KINDS:
            raise ValueError(f"sample: kind must be one of {', '.join(KINDS)}, got {kind!r}")
        for name, value in (("beta", beta), ("noise", noise)):
            if not 0 <= value < math.inf:
                raise ValueError(f"sample: {name} must be at least 0, got {value}")
        self.truth, self.noise = truth, noise
        self.weights = None  # of faces
        self.exact = kind == "importance"
        self.tries = 1.0  # draws per accepted one
        self.decays: dict[float, float] = {}  # beta: share
        if kind == "curvature":
            bend = truth.curvature().double()
            mean = (bend * truth.areas).sum() / truth.areas.sum()
            # Half of the points go everywhere; a sharp edge's small faces get at most 100 times the mean.
            self.weights = 1 + (bend / mean.clamp(min=1e-9)).clamp(max=100)
        elif kind != "surface":
            self.decays = {"uniform": {0.0: 1.0}, "importance": {beta: 1.0}, "mixed": _mixture(beta)}[kind]
            self._make_cells()

    def __call__(self, count: int, generator: torch.Generator | None = None) -> Samples:
        """`count` samples; the same generator state gives the same ones."""
        if count < 0:
            raise ValueError(f"sample: count must be at least 0, got {count}")
        parts, missing = [self._draw(0, generator)], count
        while missing > 0:
            parts.append(self._draw(min(_AT_ONCE, math.ceil(missing * self.tries)), generator).rows(slice(missing)))
            missing -= len(parts[-1].points)
        return Samples(*(torch.cat(columns) for columns in zip(*parts, strict=True)))

    def _draw(self, count: int, generator: torch.Generator | None) -> Samples:
        """At most `count` samples."""
        if not self.decays:
            points, _ = self.truth.surface(count, generator, self.weights)
            points = points + self.noise * torch.randn(
                points.shape, device=points.device, generator=generator, dtype=torch.float32
            )
            distances, normals = self.truth.distance_and_normal(points)
            return Samples(points, distances, torch.ones_like(distances), normals)
        device = self.truth.device
        u = torch.rand(count, dtype=torch.float64, device=device, generator=generator) * self.cumulative[-1]
        cells = torch.searchsorted(self.cumulative, u, right=True).clamp(max=len(self.cumulative) - 1)
        offsets = 2 * torch.rand(count, 3, device=device, generator=generator, dtype=torch.float32) - 1
        points = self.centres[cells] + self.halves[cells, None] * offsets
        distances, normals = self.truth.distance_and_normal(points)
        if not self.exact:
            return Samples(points, distances, self.mass / self.bounds[cells], normals)
        density = self._density(distances.abs())
        accepted = (
            torch.rand(count, device=device, generator=generator, dtype=torch.float32) * self.bounds[cells] <= density
        )
        return Samples(points, distances, self.mass / density, normals).rows(accepted)

    def _density(self, distance: Tensor) -> Tensor:
        """Of the sampling, up to a factor, where |s| is `distance`."""
        return sum(
            (share * (-beta * distance).exp() for beta, share in self.decays.items()), torch.zeros_like(distance)
        )

    def _make_cells(self) -> None:
        steepest = max(self.decays)
        half = 1 / _COARSEST
        ticks = torch.arange(_COARSEST, device=self.truth.device, dtype=torch.float32) * 2 * half + half - 1
        centres = torch.cartesian_prod(ticks, ticks, ticks)
        done: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        while len(centres):
            distance = self.truth.signed_distance(centres).abs()
            reach = math.sqrt(3) * half
            nearest = (distance - reach).clamp(min=0)
            total = sum(len(cells[0]) for cells in done) + 8 * len(centres)
            split = steepest * nearest < 4
            if steepest * reach <= 1 or total > _MAX_CELLS:
                split = torch.zeros_like(split)
            done.append((centres[~split], torch.full_like(distance[~split], half), distance[~split], nearest[~split]))
            half /= 2
            corners = centres.new_tensor([-half, half])
            centres = (centres[split, None] + torch.cartesian_prod(corners, corners, corners)).view(-1, 3)
        self.centres, self.halves, distance, nearest = (torch.cat(column) for column in zip(*done, strict=True))
        volume = (2 * self.halves.double()) ** 3
        # Shares become factors of exponentials that each integrate to about one.
        integrals = {beta: (volume * (-beta * distance.double()).exp()).sum().item() for beta in self.decays}
        if min(integrals.values()) < 1e-20:
            raise ValueError(f"sample: the surface must be in reach of [-1, 1]^3 with beta {steepest:g}, got none")
        self.decays = {beta: share / integrals[beta] for beta, share in self.decays.items()}
        self.bounds = self._density(nearest if self.exact else distance)
        self.cumulative = (volume * self.bounds).cumsum(0)
        self.mass = self.cumulative[-1].item() / 8  # the mean of the density over the cube
        if not self.exact:
            return
        found = self._draw(_PROBES, torch.Generator(self.truth.device).manual_seed(0))
        rate = max(len(found.points), 1) / _PROBES
        self.tries = 1 / rate
        self.mass *= rate


def _mixture(beta: float) -> dict[float, float]:
    return {0.0: 0.1, beta: 0.5, 5 * beta: 0.4} if beta > 0 else {0.0: 1.0}


class SampleStream:
    """`count` samples that stay the same, and come in another order in each epoch.

    At most `in_memory` are held; more are drawn again in every epoch, piece by piece, from seeds of their own.
    Arguments as of `sample`.
    """

    def __init__(
        self,
        truth: GroundTruth,
        count: int,
        kind: str = "mixed",
        *,
        beta: float = BETA,
        noise: float = 0.02,
        seed: int = 0,
        in_memory: int = 2**22,
    ) -> None:
        if count < 1 or in_memory < 1:
            raise ValueError(f"SampleStream: count and in_memory must be at least 1, got {count} and {in_memory}")
        self.sampler = Sampler(truth, kind, beta=beta, noise=noise)
        self.count, self.seed, self.piece = count, seed, min(count, in_memory)
        self._held: Samples | None = None

    def __len__(self) -> int:
        return self.count

    def epoch(self, number: int, batch_size: int) -> Iterator[Samples]:
        """Batches of `batch_size`, the last one smaller: every sample once, in an order that only `number` decides."""
        random = torch.Generator().manual_seed(_seed(self.seed, 1, number))
        pieces = -(-self.count // self.piece)
        rest = self.sampler(0)
        for index in torch.randperm(pieces, generator=random).tolist():
            piece = self._piece(index)
            order = torch.randperm(len(piece.points), generator=random).to(piece.points.device)
            piece = Samples(*(torch.cat(pair) for pair in zip(rest, piece.rows(order), strict=True)))
            whole = len(piece.points) // batch_size * batch_size
            for start in range(0, whole, batch_size):
                yield piece.rows(slice(start, start + batch_size))
            rest = piece.rows(slice(whole, None))
        if len(rest.points):
            yield rest

    def _piece(self, index: int) -> Samples:
        if self._held is not None:
            return self._held
        generator = torch.Generator(self.sampler.truth.device).manual_seed(_seed(self.seed, 0, index))
        piece = self.sampler(min(self.piece, self.count - index * self.piece), generator)
        if self.piece == self.count:
            self._held = piece
        return piece


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
