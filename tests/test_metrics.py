"""Distances of sets and of pictures against known values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sdfgan.metrics import (
    frechet_distance,
    kernel_distance,
    pairwise_chamfer,
    precision_recall,
    psnr,
    shape_scores,
    sliced_wasserstein,
    ssim,
)


def test_of_a_set_and_itself_shuffled_is_zero() -> None:
    a = torch.rand(50, 4, 8, 8)
    assert sliced_wasserstein(a, a[torch.randperm(50)]) == pytest.approx(0, abs=1e-6)


def test_of_a_shift_is_the_mean_projected_shift() -> None:
    """Moved by s along one axis, projections move by s |u_1|, whose mean is sqrt(2 / (pi d)) s for large d."""
    a = torch.randn(64, 256)
    b = a.clone()
    b[:, 0] += 3.0
    expected = 3.0 * (2 / (torch.pi * 256)) ** 0.5
    assert sliced_wasserstein(a, b, projections=4096) == pytest.approx(expected, rel=0.05)


def test_sets_must_be_equally_large() -> None:
    with pytest.raises(ValueError, match="both sets must have one shape"):
        sliced_wasserstein(torch.zeros(3, 2), torch.zeros(4, 2))


def test_frechet_distance_of_normal_features() -> None:
    """Against the formula for diagonal covariances, in both ways of computing it."""
    random = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 2.0, 0.5])
    for count in (20_000, 3):
        a = torch.randn(20_000, 3, generator=random)
        b = torch.randn(20_000, 3, generator=random) * scale + 1
        if count == 3:  # as many features as samples: the other way, of the same numbers
            wide = torch.zeros(2, 40)
            wide[0, 0], wide[1, 1] = 1, 3
            other = wide.flip(0)
            covariances = [torch.cov(x.T.double()) for x in (wide, other)]
            root = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0).sqrt().sum()
            expected = sum(c.trace() for c in covariances) - 2 * root
            assert frechet_distance(wide, other) == pytest.approx(expected.item(), abs=1e-6)
        else:
            expected = 3 + ((1 - scale) ** 2).sum().item()
            assert frechet_distance(a, b) == pytest.approx(expected, rel=0.03)
            assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_kernel_distance() -> None:
    random = torch.Generator().manual_seed(0)
    a, b = (torch.randn(300, 8, generator=random) for _ in range(2))
    same, apart = kernel_distance(a, b), kernel_distance(a, b + 1)
    assert abs(same) < 0.02 * apart
    x, y = a.double(), (b + 1).double()
    kernel = {name: (p @ q.T / 8 + 1) ** 3 for name, p, q in (("xx", x, x), ("yy", y, y), ("xy", x, y))}
    off = ~torch.eye(300, dtype=torch.bool)
    expected = kernel["xx"][off].mean() + kernel["yy"][off].mean() - 2 * kernel["xy"].mean()
    assert apart == pytest.approx(expected.item(), rel=1e-6)


def test_precision_and_recall() -> None:
    random = torch.Generator().manual_seed(0)
    reals = torch.randn(400, 2, generator=random)
    precision, recall = precision_recall(torch.randn(400, 2, generator=random), reals)
    assert precision > 0.9 and recall > 0.9
    precision, recall = precision_recall(0.1 * torch.randn(400, 2, generator=random), reals)  # collapsed
    assert precision > 0.95 and recall < 0.2
    precision, recall = precision_recall(torch.randn(400, 2, generator=random) + 50, reals)
    assert precision == recall == 0


def test_scores_of_sets_of_shapes() -> None:
    random = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(2, 12, 200, 3, generator=random), dim=-1)
    radii = torch.linspace(0.3, 0.9, 12)[:, None, None]
    true, other = directions[0] * radii, directions[1] * radii
    distances = torch.cdist(true, other, compute_mode="donot_use_mm_for_euclid_dist")
    plainly = (distances.amin(1).mean(1) + distances.amin(2).mean(1)) / 2
    torch.testing.assert_close(pairwise_chamfer(true, other).diagonal(), plainly, atol=1e-5, rtol=1e-4)
    many = torch.rand(2, 1000, 3, generator=random) + 10  # far from the origin
    assert pairwise_chamfer(many, many.clone()).diagonal().max() == 0
    good = shape_scores(other, true)
    assert good.coverage == 1 and good.mmd < 0.1
    collapsed = shape_scores(directions[1] * 0.6, true)
    assert collapsed.coverage < 0.3 and collapsed.mmd > good.mmd and collapsed.one_nna > 0.8


# -------------------------------------------------------------------------------------------------- pictures


def test_psnr_of_a_known_error() -> None:
    a = torch.full((3, 4, 5), 0.5)
    assert psnr(a, a + 0.1) == pytest.approx(20, abs=1e-4)
    assert psnr(a, a) > 100
    with pytest.raises(ValueError, match="psnr: both must have one shape"):
        psnr(a, a[:1])


def test_ssim_is_that_of_scikit_image() -> None:
    from skimage.metrics import structural_similarity

    random = torch.Generator().manual_seed(0)
    a = torch.rand(3, 24, 31, generator=random)
    b = (a + 0.2 * torch.rand(3, 24, 31, generator=random)).clamp(0, 1)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = structural_similarity(a.double().numpy(), b.double().numpy(), channel_axis=0, data_range=1.0, **options)
    assert ssim(a, b) == pytest.approx(expected, abs=1e-6)
    assert ssim(a, a) == pytest.approx(1)
    assert ssim(a[:, :3, :3], a[:, :3, :3]) == pytest.approx(1)


@pytest.mark.parametrize("size", [(24, 31), (7, 30), (5, 4)])
def test_scores_of_known_pixels(size: tuple[int, int]) -> None:
    """Against sums over the pixels of each window in numpy; what the other pixels hold, even no number, is nothing."""
    random = np.random.default_rng(1)
    a, b = random.random((2, 3, *size))
    known = random.random(size) < 0.6
    known[:, : size[1] // 2] = False
    weights = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / 1.5) ** 2) for n in (min(11, side) for side in size)]
    window = np.outer(*(line / line.sum() for line in weights))
    total = share = 0.0
    for i in range(size[0] - window.shape[0] + 1):
        for j in range(size[1] - window.shape[1] + 1):
            part = np.s_[i : i + window.shape[0], j : j + window.shape[1]]
            w = window[known[part]]
            if w.sum() == 0:
                continue
            for x, y in zip(a, b, strict=True):
                x, y = x[part][known[part]], y[part][known[part]]
                mx, my = np.average(x, weights=w), np.average(y, weights=w)
                vx, vy, xy = (np.average(p, weights=w) for p in ((x - mx) ** 2, (y - my) ** 2, (x - mx) * (y - my)))
                score = (2 * mx * my + 1e-4) * (2 * xy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
                total, share = total + w.sum() * score, share + w.sum()
    square = (a - b)[:, known] ** 2
    a[:, ~known], b[:, ~known] = np.nan, 7.0
    a, b, mask = torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(known)
    assert ssim(a, b, mask) == pytest.approx(total / share, abs=1e-9)
    assert psnr(a, b, mask) == pytest.approx(-10 * np.log10(square.mean()), abs=1e-9)
    whole = torch.rand(2, 3, *size)
    assert ssim(*whole, torch.ones(size).bool()) == pytest.approx(ssim(*whole), abs=1e-12)
    for wrong in (torch.zeros(size).bool(), torch.ones(size), torch.ones(size[::-1]).bool()[:3]):
        for score in (ssim, psnr):
            with pytest.raises(ValueError, match=r"known must be \["):
                score(a, b, wrong)


def test_lpips_with_stand_in_weights(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from sdfgan.errors import UserError
    from sdfgan.lpips import Lpips, load_lpips

    torch.manual_seed(0)
    network = Lpips()
    names = ("net.slice1.0", "net.slice2.3", "net.slice3.6", "net.slice4.8", "net.slice5.10")
    tensors = {}
    for index, (name, layer) in enumerate(zip(names, network.layers, strict=True)):
        tensors |= {f"{name}.{part}": value.data for part, value in layer.named_parameters()}
        tensors[f"lin{index}.model.1.weight"] = torch.ones_like(network.weights[index].data)
    save_file(tensors, tmp_path / "alex.safetensors")
    lpips = load_lpips(tmp_path / "alex.safetensors")
    a = torch.rand(3, 48, 40)
    near, far = lpips(a, (a + 0.02).clamp(0, 1)), lpips(a, a.flip(2))
    assert lpips(a, a) == 0 < near < far and lpips(a.flip(2), a) == pytest.approx(far)
    known = torch.zeros(48, 40, dtype=torch.bool)
    known[:, :24] = True
    noisy = torch.where(known, a, torch.rand(3, 48, 40))
    assert lpips(a, noisy, known) == 0 < lpips(a, noisy)
    assert lpips(noisy, a.flip(2), known) == lpips(a, a.flip(2), known)
    assert lpips(a, a.flip(2), torch.ones_like(known)) == pytest.approx(far, rel=1e-5)
    del tensors["lin3.model.1.weight"]
    save_file(tensors, tmp_path / "less.safetensors")
    with pytest.raises(UserError, match=r"tensor lin3.model.1.weight must be \[1, 256, 1, 1\], got none"):
        load_lpips(tmp_path / "less.safetensors")
