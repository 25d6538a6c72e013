"""Scalers: round trips, agreement with their definitions, and the surface that they leave where it is."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from sdfgan.sdf.scalers import SCALERS, PowerTransformer, QuantileTransformer, StandardScaler


def distances(count: int = 5000) -> Tensor:
    """As training has them: most near zero, long tails."""
    random = torch.Generator().manual_seed(3)
    return (0.02 * torch.randn(count, 1, generator=random)).exp().sub(1) + 0.3 * torch.rand(
        count, 1, generator=random
    ).pow(6)


@pytest.mark.parametrize("name", SCALERS)
def test_round_trip_is_exact_even_beyond_the_fitted_values(name: str) -> None:
    values = torch.cat([distances(), distances().flip(0) * 2 + 0.1, distances() - 0.5], 1)
    scaler = SCALERS[name](3).fit(values)
    span = values.amax(0) - values.amin(0)
    beyond = torch.cat([values, values.amin(0) - span * torch.rand(500, 1), values.amax(0) + span * torch.rand(500, 1)])
    assert (scaler.inverse(scaler(beyond)) - beyond).abs().max() < 1e-5
    order = beyond[:, :1].unique(dim=0).expand(-1, 3)
    assert (scaler(order).diff(dim=0) >= 0).all() and scaler(beyond).isfinite().all()


@pytest.mark.parametrize("name", SCALERS)
def test_the_zero_level_set_stays(name: str) -> None:
    values = distances() - 0.01
    scaler = SCALERS[name](1).fit(values)
    zero = scaler(torch.zeros(1, 1))
    assert torch.equal(scaler(values) < zero, values < 0)


@pytest.mark.parametrize("name", SCALERS)
def test_state_is_all_of_it(name: str) -> None:
    values = distances()
    fitted, other = SCALERS[name](1).fit(values), SCALERS[name](1)
    other.load_state_dict(fitted.state_dict())
    assert torch.equal(fitted(values), other(values)) and not torch.equal(SCALERS[name](1)(values), other(values))


@pytest.mark.parametrize("name", SCALERS)
def test_gradients(name: str) -> None:
    scaler = SCALERS[name](2).fit(torch.cat([distances(), distances() ** 2], 1))
    x = torch.tensor([[0.013, 0.02], [-0.4, -0.1], [0.5, 0.9]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(scaler.double(), x)
    assert torch.autograd.gradcheck(scaler.inverse, x)


@pytest.mark.parametrize("name", SCALERS)
def test_constant_values(name: str) -> None:
    values = torch.full((50, 1), 0.25)
    scaler = SCALERS[name](1).fit(values)
    assert scaler(values).isfinite().all()
    assert torch.allclose(scaler.inverse(scaler(values)), values, atol=1e-5)


def test_standard_and_power_follow_their_definitions() -> None:
    values = distances()
    scaled = StandardScaler(1).fit(values)(values)
    assert abs(scaled.mean()) < 1e-5 and abs(scaled.std(correction=0) - 1) < 1e-5
    wanted, power = stats.yeojohnson(values[:, 0].double().numpy())
    scaler = PowerTransformer(1).fit(values)
    assert scaler.power.item() == pytest.approx(power, rel=1e-4)
    standard = (wanted - wanted.mean()) / wanted.std()
    assert torch.allclose(scaler(values)[:, 0].double(), torch.from_numpy(standard), atol=1e-4)


def test_quantiles_become_normal() -> None:
    values = distances()
    scaled = QuantileTransformer(1).fit(values)(values)[:, 0].double().numpy()
    assert stats.kstest(scaled, "norm").statistic < 0.01
    assert stats.kstest(StandardScaler(1).fit(values)(values)[:, 0].double().numpy(), "norm").statistic > 0.1
