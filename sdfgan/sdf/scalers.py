"""Invertible maps that give coordinates or distances a handier distribution, each column by itself.

All are strictly increasing on the whole line, so a surface f = 0 is the surface scaler(f) = scaler(0).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from sdfgan.fields.coordinate import Invertible

_KNOTS = 1000
_MIN_STEP = 1e-6  # of the range: quantiles closer than that are one knot


class Scaler(Invertible):
    """A map [N, D] -> [N, D] and its `inverse`; `fit` sets its buffers, which are all that it has."""

    def fit(self, values: Tensor) -> Scaler:
        """Adapt to values [N, D], N >= 2; constant columns are only moved."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Values in the new range; differentiable."""
        raise NotImplementedError

    def inverse(self, y: Tensor) -> Tensor:
        """Undo `forward`; differentiable, and defined for any y."""
        raise NotImplementedError


class StandardScaler(Scaler):
    """Mean 0 and standard deviation 1."""

    mean: Tensor
    std: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("std", torch.ones(columns))

    def fit(self, values: Tensor) -> StandardScaler:
        """See `Scaler.fit`."""
        values = values.double()
        std = values.std(0, correction=0)
        self.mean.copy_(values.mean(0))
        self.std.copy_(torch.where(std > 0, std, 1.0))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """See `Scaler.forward`."""
        return (x - self.mean) / self.std

    def inverse(self, y: Tensor) -> Tensor:
        """See `Scaler.inverse`."""
        return y * self.std + self.mean


class PowerTransformer(Scaler):
    """The power of Yeo and Johnson (2000) that makes values most nearly normal, then mean 0 and deviation 1.

    Beyond the values that it was fitted to it goes on straight, so that every y has its x. Computed in float64.
    """

    power: Tensor
    ends: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("power", torch.ones(columns, dtype=torch.float64))
        self.register_buffer("ends", torch.zeros(2, columns, dtype=torch.float64))  # least and largest value
        self.register_buffer("mean", torch.zeros(columns, dtype=torch.float64))
        self.register_buffer("std", torch.ones(columns, dtype=torch.float64))

    def fit(self, values: Tensor) -> PowerTransformer:
        """See `Scaler.fit`."""
        values = values.double()
        self.ends.copy_(torch.stack([values.amin(0), values.amax(0)]))
        for column in range(values.shape[1]):
            if self.ends[0, column] < self.ends[1, column]:
                self.power[column] = float(stats.yeojohnson_normmax(values[:, column].cpu().numpy()))
        bent = _yeo_johnson(values, self.power)
        std = bent.std(0, correction=0)
        self.mean.copy_(bent.mean(0))
        self.std.copy_(torch.where(std > 0, std, 1.0))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """See `Scaler.forward`."""
        value = x.double()
        within = value.maximum(self.ends[0]).minimum(self.ends[1])
        bent = _yeo_johnson(within, self.power) + (value - within) * self._slope(within.detach())
        return ((bent - self.mean) / self.std).to(x.dtype)

    def inverse(self, y: Tensor) -> Tensor:
        """See `Scaler.inverse`."""
        bent = y.double() * self.std + self.mean
        low, high = _yeo_johnson(self.ends, self.power)
        within = bent.maximum(low).minimum(high)
        value = _yeo_johnson_inverse(within, self.power)
        return (value + (bent - within) / self._slope(value.detach())).to(y.dtype)

    def _slope(self, x: Tensor) -> Tensor:
        exponent = torch.where(x >= 0, self.power - 1, 1 - self.power)
        return (1 + x.abs()) ** exponent


def _yeo_johnson(x: Tensor, power: Tensor) -> Tensor:
    """x^(+): ((x + 1)^p - 1) / p for x >= 0 and -((1 - x)^(2 - p) - 1) / (2 - p) below; logarithms where p is 0, 2."""
    p = torch.where(x >= 0, power, 2 - power)
    log = torch.log1p(x.abs())
    safe = torch.where(p.abs() > 1e-9, p, 1.0)
    return torch.where(x >= 0, 1.0, -1.0) * torch.where(p.abs() > 1e-9, torch.expm1(safe * log) / safe, log)


def _yeo_johnson_inverse(y: Tensor, power: Tensor) -> Tensor:
    p = torch.where(y >= 0, power, 2 - power)
    safe = torch.where(p.abs() > 1e-9, p, 1.0)
    log = torch.where(p.abs() > 1e-9, torch.log1p(safe * y.abs()) / safe, y.abs())
    return torch.where(y >= 0, 1.0, -1.0) * torch.expm1(log)


class QuantileTransformer(Scaler):
    """To a normal distribution: straight lines between 1000 quantiles and those of the normal distribution.

    The first and last line go on beyond the values that it was fitted to; so tails survive a round trip.
    """

    knots: Tensor
    normal: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        start = torch.linspace(-1, 1, _KNOTS, dtype=torch.float64)
        self.register_buffer("knots", start.repeat(columns, 1))  # [D, K] ascending
        self.register_buffer("normal", start.repeat(columns, 1))  # where they go

    def fit(self, values: Tensor) -> QuantileTransformer:
        """See `Scaler.fit`."""
        count = len(values)
        for column, data in enumerate(values.double().cpu().numpy().T):
            share = np.linspace(0.5 / count, 1 - 0.5 / count, _KNOTS)
            knots, normal = np.quantile(data, share), stats.norm.ppf(share)
            spread = knots[-1] - knots[0]
            if not spread > 0:
                knots, normal = knots[0] + np.linspace(-1, 1, _KNOTS), np.linspace(-1, 1, _KNOTS)
            else:
                # Equal quantiles become one knot; then the lines between are cut into as many as before.
                first = np.concatenate([[True], np.diff(knots) > _MIN_STEP * spread])
                group = first.cumsum() - 1
                distinct = np.bincount(group, knots) / np.bincount(group)
                middle = np.bincount(group, normal) / np.bincount(group)
                along = np.linspace(0, len(distinct) - 1, _KNOTS)
                knots, normal = (np.interp(along, np.arange(len(distinct)), y) for y in (distinct, middle))
            self.knots[column] = torch.from_numpy(knots)
            self.normal[column] = torch.from_numpy(normal)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """See `Scaler.forward`."""
        return _lines(x, self.knots, self.normal)

    def inverse(self, y: Tensor) -> Tensor:
        """See `Scaler.inverse`."""
        return _lines(y, self.normal, self.knots)


def _lines(x: Tensor, at: Tensor, to: Tensor) -> Tensor:
    """The lines through (at, to) [D, K] at x [N, D]."""
    value = x.double().T.contiguous()
    right = torch.searchsorted(at, value.detach()).clamp(1, at.shape[1] - 1)
    x0, x1, y0, y1 = (line.gather(1, index) for line in (at, to) for index in (right - 1, right))
    return (y0 + (value - x0) * ((y1 - y0) / (x1 - x0))).T.to(x.dtype)


SCALERS: dict[str, Callable[[int], Scaler]] = {
    "StandardScaler": StandardScaler,
    "PowerTransformer": PowerTransformer,
    "QuantileTransformer": QuantileTransformer,
}
