"""How far apart two sets are: of images, of their features, of shapes. Nothing here is differentiable."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree  # a hundred times faster than all distances
from torch import Tensor

_PROJECTIONS_AT_ONCE = 64
_WINDOW, _WINDOW_DEVIATION = 11, 1.5  # of SSIM, pixels
_NEIGHBOUR = 3  # whose distance is the radius of a feature's ball in precision and recall
_KERNEL_SUBSETS, _KERNEL_SUBSET_SIZE = 100, 1000


@torch.no_grad()
def sliced_wasserstein(a: Tensor, b: Tensor, projections: int = 512, seed: int = 0) -> float:
    """Sliced 1-Wasserstein distance of two equally large sets [N, ...] of float tensors, flattened.

    The mean over random unit directions, and over the sorted projections, of the absolute difference (Rabin et al.
    2011). It has a floor that falls with N: compare distances of equal N only. Not differentiable.
    """
    if a.shape != b.shape or len(a) == 0:
        raise ValueError(
            f"sliced_wasserstein: both sets must have one shape [N, ...], N > 0, got {list(a.shape)}, {list(b.shape)}"
        )
    a, b = a.flatten(1), b.flatten(1)
    random = torch.Generator().manual_seed(seed)
    total = 0.0
    for start in range(0, projections, _PROJECTIONS_AT_ONCE):
        count = min(_PROJECTIONS_AT_ONCE, projections - start)
        directions = torch.randn(a.shape[1], count, generator=random).to(a)
        directions = directions / directions.norm(dim=0)
        difference = (a @ directions).sort(dim=0).values - (b @ directions).sort(dim=0).values
        total += difference.abs().mean(0).sum().item()
    return total / projections


# ----------------------------------------------------------------------------------------- images [C, H, W] in [0, 1]


def psnr(a: Tensor, b: Tensor, known: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio of two tensors of one shape, values in [0, 1]: -10 log10 of the mean squared error.

    With `known` [..., H, W] bool, of tensors [..., C, H, W], the mean is over the pixels that it sets; at least one.
    """
    if a.shape != b.shape or a.numel() == 0:
        raise ValueError(f"psnr: both must have one shape, not empty, got {list(a.shape)} and {list(b.shape)}")
    square = (a.double() - b.double()).square()
    if known is not None:
        _check_known("psnr", known, a)
        square = square.movedim(-3, -1)[known]
    return decibels(square.mean().item())


def decibels(mean_squared_error: float) -> float:
    """PSNR of values in [0, 1]."""
    return -10 * math.log10(max(mean_squared_error, 1e-30))


def ssim(a: Tensor, b: Tensor, known: Tensor | None = None) -> float:
    """Structural similarity of images [C, H, W] in [0, 1] (Wang et al. 2004): the mean over windows and channels.

    Windows are Gaussian, 11 pixels wide, of deviation 1.5, and lie wholly in the image; K1 = 0.01, K2 = 0.03. Smaller
    images have one window, their size. Not differentiable.

    With `known` [H, W] bool, at least one of them set, nothing depends on the other pixels: means, variances and the
    covariance of a window are those of its known pixels, whose Gaussian weights are scaled to a sum of one, and a
    window counts in the mean by their sum before that.
    """
    if a.shape != b.shape or a.ndim != 3 or a.numel() == 0:
        raise ValueError(f"ssim: both must be [C, H, W], got {list(a.shape)} and {list(b.shape)}")
    shares = a.new_ones(a.shape[1:], dtype=torch.float64)
    if known is not None:
        _check_known("ssim", known, a)
        shares = known.double()
    a, b = (x.detach().double()[:, None] for x in (a, b))
    windows = []
    for size in a.shape[2:]:
        width = min(_WINDOW, size)
        place = torch.arange(width).to(a) - (width - 1) / 2
        window = (-0.5 * (place / _WINDOW_DEVIATION).square()).exp()
        windows.append(window / window.sum())

    def weighted(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, windows[0][None, None, :, None]), windows[1][None, None, None])

    def mean(x: Tensor) -> Tensor:
        return weighted(torch.where(shares > 0, x, 0.0)) / weights.clamp(min=1e-300)

    weights = weighted(shares[None, None])
    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    scores = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    scores = scores / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))
    return ((scores * weights).mean() / weights.mean()).item()


def _check_known(name: str, known: Tensor, image: Tensor) -> None:
    wanted = (*image.shape[:-3], *image.shape[-2:])
    if image.ndim < 3 or known.shape != wanted or known.dtype != torch.bool or not known.any():
        raise ValueError(
            f"{name}: known must be {list(wanted)} bool, somewhere set, of images [..., C, H, W], "
            f"got {list(known.shape)} {known.dtype}"
        )


# ---------------------------------------------------------------------------------------------- features [N, F]


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Distance of the normal distributions fitted to two sets of features [N, F], [M, F] (FID, Heusel et al. 2017).

    |mean a - mean b|^2 + trace(A + B - 2 sqrt(A B)), in float64. The trace of the root is the sum of the roots of the
    eigenvalues of A B, which are those of a^T b, squared, for centred a and b: far smaller when N < F.
    """
    _check_features("frechet_distance", a, b)
    a, b = a.double(), b.double()
    centred_a, centred_b = (x - x.mean(0) for x in (a, b))
    scale = ((len(a) - 1) * (len(b) - 1)) ** 0.5
    root = torch.linalg.svdvals(centred_a @ centred_b.T).sum() / scale if min(len(a), len(b)) <= a.shape[1] else None
    if root is None:
        covariances = [x.T @ x / (len(x) - 1) for x in (centred_a, centred_b)]
        halves = [_square_root(covariance) for covariance in covariances]
        root = torch.linalg.svdvals(halves[0] @ halves[1]).sum()
    spread = centred_a.square().sum() / (len(a) - 1) + centred_b.square().sum() / (len(b) - 1)
    return max(0.0, ((a.mean(0) - b.mean(0)).square().sum() + spread - 2 * root).item())


def _square_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def kernel_distance(a: Tensor, b: Tensor, seed: int = 0) -> float:
    """Unbiased squared MMD of features [N, F], [M, F] under (x.y / F + 1)^3 (KID, Binkowski et al. 2018).

    The mean over subsets of 1000, or of all where there are fewer.
    """
    _check_features("kernel_distance", a, b)
    random = torch.Generator().manual_seed(seed)
    size = min(_KERNEL_SUBSET_SIZE, len(a), len(b))
    if size < 2:
        raise ValueError(f"kernel_distance: at least two features are needed on each side, got {len(a)} and {len(b)}")
    subsets = _KERNEL_SUBSETS if size < max(len(a), len(b)) else 1
    total = 0.0
    for _ in range(subsets):
        x = a[torch.randperm(len(a), generator=random)[:size].to(a.device)].double()
        y = b[torch.randperm(len(b), generator=random)[:size].to(b.device)].double()
        xx, yy, xy = (((p @ q.T) / a.shape[1] + 1) ** 3 for p, q in ((x, x), (y, y), (x, y)))
        within = (xx.sum() - xx.trace() + yy.sum() - yy.trace()) / (size * (size - 1))
        total += (within - 2 * xy.mean()).item()
    return total / subsets


def precision_recall(fakes: Tensor, reals: Tensor) -> tuple[float, float]:
    """Share of fakes within the reals' manifold, and of reals within the fakes' (Kynkaanniemi et al. 2019).

    The manifold of a set of features [N, F] is the union of balls that reach each one's third neighbour.
    """
    _check_features("precision_recall", fakes, reals)
    if min(len(fakes), len(reals)) <= _NEIGHBOUR:
        raise ValueError(f"precision_recall: more than {_NEIGHBOUR} features are needed on each side")
    return _share_within(fakes, reals), _share_within(reals, fakes)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Of all pairs of rows, from differences: products of coordinates would leave a distance between equal rows."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _share_within(points: Tensor, manifold: Tensor) -> float:
    radii = torch.cat(
        [_distances(part, manifold).kthvalue(_NEIGHBOUR + 1, dim=1).values for part in manifold.split(1024)]
    )
    inside = [(_distances(part, manifold) <= radii).any(1) for part in points.split(1024)]
    return torch.cat(inside).float().mean().item()


def _check_features(name: str, a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 1:
        raise ValueError(f"{name}: features must be [N, F] and [M, F], got {list(a.shape)} and {list(b.shape)}")


# ------------------------------------------------------------------------------------------- shapes, as points [P, 3]


class ShapeScores(NamedTuple):
    """How a set of generated shapes compares with a set of true ones (Yang et al. 2019)."""

    mmd: float  # mean distance from each true shape to the nearest generated one; 0 is best
    coverage: float  # share of true shapes that are the nearest one to some generated shape; 1 is best
    one_nna: float  # accuracy of a nearest-neighbour classifier between the sets; 0.5 is best


def shape_scores(generated: Tensor, true: Tensor) -> ShapeScores:
    """Set metrics of point clouds [N, P, 3] and [M, P, 3] under the Chamfer distance."""
    across = pairwise_chamfer(generated, true)
    within = [pairwise_chamfer(clouds, clouds) for clouds in (generated, true)]
    for matrix in within:
        matrix.fill_diagonal_(float("inf"))
    both = torch.cat([torch.cat([within[0], across], 1), torch.cat([across.T, within[1]], 1)])
    is_generated = torch.arange(len(both)) < len(generated)
    nearest = both.argmin(1)
    return ShapeScores(
        mmd=across.amin(0).mean().item(),
        coverage=len(across.argmin(1).unique()) / len(true),
        one_nna=(is_generated[nearest] == is_generated).float().mean().item(),
    )


def chamfer(a: cKDTree, b: cKDTree) -> float:
    """Chamfer distance of two point clouds: the mean distance to the other's nearest point, averaged over both."""
    return float(a.query(b.data)[0].mean() + b.query(a.data)[0].mean()) / 2


def pairwise_chamfer(a: Tensor, b: Tensor) -> Tensor:
    """Chamfer distances [N, M] of point clouds [N, P, 3] and [M, Q, 3]."""
    trees_a, trees_b = ([cKDTree(cloud) for cloud in clouds.cpu().numpy()] for clouds in (a, b))
    result = np.zeros((len(a), len(b)), np.float32)
    for i, tree in enumerate(trees_a):
        for j, other in enumerate(trees_b):
            result[i, j] = result[j, i] if a is b and j <= i else chamfer(tree, other)  # the same, or 0 of itself
    return torch.from_numpy(result)
