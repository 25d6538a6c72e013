"""Sliced-Wasserstein distance against known values."""

from __future__ import annotations

import pytest
import torch

from sdfgan.metrics import sliced_wasserstein


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
