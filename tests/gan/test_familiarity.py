"""How far inversions lie from what was trained: against the formula, and on shapes and cameras that are known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sdfgan.cameras import pose_distribution
from sdfgan.fields import Field, FilmSirenSDF
from sdfgan.gan import GanConfig
from sdfgan.gan.familiarity import _LATENTS, CodeDistribution, familiarity


@dataclass(frozen=True)
class Codes:
    values: Tensor
    others: Tensor


class Linear(Field):
    """A field whose codes are linear in its latents, which are few."""

    latent_size = 3

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(3, 7, generator=torch.Generator().manual_seed(5)), False)

    def condition(self, latents: Tensor | None) -> Any:
        assert latents is not None
        codes = latents @ self.weight + 2
        return Codes(codes[:, :4].unflatten(1, (2, 2)), 100 * codes[:, 4:])


CONFIG = GanConfig(latent_size=3)


def test_distances_are_those_of_the_formula() -> None:
    field = Linear()
    distribution = CodeDistribution(field, CONFIG)
    latents = torch.randn(_LATENTS, 3, generator=torch.Generator().manual_seed(0))
    made = field.condition(latents)
    x, y = made.values.flatten(1).double().numpy(), made.others.double().numpy()
    codes = np.concatenate([x / x.std(ddof=1), y / y.std(ddof=1)], 1)
    known, others = codes[: _LATENTS // 2], codes[_LATENTS // 2 :]
    covariance = np.cov(known.T)
    inverse = np.linalg.inv(covariance + np.trace(covariance) / 7 * np.eye(7))
    apart = others - known.mean(0)
    wanted = np.sqrt(np.einsum("ni,ij,nj->n", apart, inverse, apart))
    wanted /= np.sort(wanted)[(len(wanted) - 1) // 2]
    found = distribution.distances(field.condition(latents[_LATENTS // 2 :])).numpy()
    assert np.allclose(found, wanted, rtol=1e-4)
    aside = Codes(torch.zeros(1, 2, 2), torch.full((1, 3), 1e4))  # which no latent gives
    assert distribution.distances(aside).item() > 10


def test_random_shapes_are_familiar_and_others_are_not() -> None:
    torch.manual_seed(0)
    field = FilmSirenSDF(width=16, latent_size=8, mapping_width=16)
    config = GanConfig(latent_size=8, width=16)
    poses = pose_distribution("uniform", (math.radians(10), math.radians(30)), (0.0, 2 * math.pi))
    distribution = CodeDistribution(field, config)
    latents = torch.randn(400, 8, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        distances = distribution.distances(field.condition(latents))
        assert distances.median().item() == pytest.approx(1, abs=0.1)
        assert (distribution.distances(field.condition(4 * latents)) > distances).double().mean() > 0.95

        def judged(latents: Tensor, elevation: float, azimuth: float) -> Any:
            return familiarity(field, config, poses, field.condition(latents), math.radians(elevation), azimuth)

        known = judged(latents[:1], 20, 50.0)
        assert known.warning() is None and not known.to_json()["outside_of_training"]
        assert known.code_percentile == pytest.approx(100 * (distances < distances[0]).double().mean().item(), abs=8)
        strange = judged(30 * latents[:1], 20, 1.0)
        assert strange.strange_shape and not strange.strange_camera and strange.code_percentile == 100
        assert "times as far from the mean as those of a typical random shape" in (strange.warning() or "")
        below = judged(latents[:1], -4, 1.0)
        assert math.degrees(below.elevation_outside) == pytest.approx(-14, abs=0.1)
        assert "the camera's elevation is 14.0 degrees below the trained range" in (below.warning() or "")
        assert below.to_json()["outside_of_training"] is True


def test_cameras_beside_the_trained_azimuths() -> None:
    poses = pose_distribution("uniform", (0.0, 0.0), (math.radians(-40), math.radians(40)))
    field = Linear()
    condition = field.condition(torch.zeros(1, 3))

    def outside(degrees: float) -> float:
        found = familiarity(field, CONFIG, poses, condition, 0.0, math.radians(degrees))
        return math.degrees(found.azimuth_outside)

    assert outside(30) == outside(-39) == outside(340) == 0
    assert outside(90) == pytest.approx(50, abs=0.1) and outside(-60 + 720) == pytest.approx(-20, abs=0.1)
