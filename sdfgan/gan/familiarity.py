"""How far an inverted shape and its camera lie from what a generator was trained on.

Shapes are compared where they are moved, among the codes that the mapping network puts out (W): by the Mahalanobis
distance from the mean of random latents' codes, with the mean variance added in every direction, as probabilistic PCA
has it. Optimised codes leave the few directions that the network uses; without that any such step would be infinite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdfgan import conditions
from sdfgan.cameras import PoseDistribution
from sdfgan.fields import Field
from sdfgan.gan.config import ResolvedGanConfig

_LATENTS, _SEED, _AT_ONCE = 4000, 0, 500  # half of them for the mean and the covariance, half to compare with
_POSES = 10_000
_SLACK = math.radians(1.0)  # of cameras
# Inversions of unseen images of the built-in set came to 0.8 to 1.0 times the distance of 99.9 % of random shapes, of
# a mug, which it has not, to 1.6 times.
_MAX_DISTANCE = 1.25
_FARTHEST = 0.999  # of random shapes


@dataclass(frozen=True)
class Familiarity:
    """What `CodeDistribution` and the poses say of an inversion. Distances: 1 is that of the median random shape."""

    code_distance: float
    code_percentile: float  # of random shapes that are nearer to the mean, 0 to 100
    farthest_distance: float  # that 99.9 % of random shapes have at most
    elevation_outside: float | None  # radians beyond the trained range, negative below it; 0 within; None: not known
    azimuth_outside: float | None

    @property
    def strange_shape(self) -> bool:
        """Whether the codes lie far outside of those of random shapes."""
        return not self.code_distance <= _MAX_DISTANCE * self.farthest_distance

    @property
    def strange_camera(self) -> bool:
        """Whether the generator has learned from no such direction."""
        return any(abs(outside or 0.0) > _SLACK for outside in (self.elevation_outside, self.azimuth_outside))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "code_distance": round(self.code_distance, 3),
            "code_percentile": round(self.code_percentile, 2),
            "distance_of_99.9_percent": round(self.farthest_distance, 3),
            "elevation_outside_degrees": _degrees(self.elevation_outside),
            "azimuth_outside_degrees": _degrees(self.azimuth_outside),
            "outside_of_training": self.strange_shape or self.strange_camera,
        }

    def warning(self) -> str | None:
        """One line where the result lies outside of what was trained, else None."""
        said = []
        if self.strange_shape:
            said.append(
                f"its codes lie {self.code_distance:.1f} times as far from the mean as those of a typical random shape "
                f"(99.9 % are within {self.farthest_distance:.1f})"
            )
        for name, outside in (("elevation", self.elevation_outside), ("azimuth", self.azimuth_outside)):
            if outside is not None and abs(outside) > _SLACK:
                side = "above" if outside > 0 else "below"
                said.append(f"the camera's {name} is {abs(math.degrees(outside)):.1f} degrees {side} the trained range")
        if not said:
            return None
        return f"outside the training distribution, so a good match proves little: {', and '.join(said)}"


class CodeDistribution:
    """The codes of random latents: their mean, their spread, and how far from the mean they lie."""

    @torch.no_grad()
    def __init__(self, generator: Field, config: ResolvedGanConfig) -> None:
        random = torch.Generator().manual_seed(_SEED)
        device = next(generator.parameters()).device
        latents = config.latent_std * torch.randn(_LATENTS, generator.latent_size, generator=random)
        parts = [conditions.tensors_of(generator.condition(part.to(device))) for part in latents.split(_AT_ONCE)]
        flat = {name: torch.cat([part[name].flatten(1).double() for part in parts]).cpu() for name in parts[0]}
        self._scales = {name: values.std().clamp(min=1e-6) for name, values in flat.items()}  # so that kinds compare
        values = torch.cat([values / self._scales[name] for name, values in flat.items()], 1)
        known, others = values.chunk(2)
        self._mean = known.mean(0)
        _, singular, self._directions = torch.linalg.svd(known - self._mean, full_matrices=False)
        variances = singular.square() / (len(known) - 1)
        self._floor = variances.sum() / values.shape[1]
        self._variances = variances + self._floor
        distances = self._distances(others)
        self.median = distances.median()
        self.reference = (distances / self.median).sort().values  # [N] of random shapes

    def _distances(self, values: Tensor) -> Tensor:
        """[N] of scaled codes [N, D]."""
        apart = values - self._mean
        along = apart @ self._directions.T
        rest = (apart.square().sum(1) - along.square().sum(1)).clamp(min=0)
        return ((along.square() / self._variances).sum(1) + rest / self._floor).sqrt()

    @torch.no_grad()
    def distances(self, condition: Any) -> Tensor:
        """[B] of the rows of a condition from the mean; 1 is that of the median random shape."""
        tensors = conditions.tensors_of(condition)
        values = [tensors[name].flatten(1).double().cpu() / scale for name, scale in self._scales.items()]
        return self._distances(torch.cat(values, 1)) / self.median


def familiarity(
    generator: Field,
    config: ResolvedGanConfig,
    poses: PoseDistribution,
    condition: Any,
    elevation: float,
    azimuth: float,
) -> Familiarity:
    """Of a shape, the condition of one row, seen from a camera (radians).

    Of runs with `--poses data` the poses are not known here, and so it is not how far the camera is outside of them.
    """
    distribution = CodeDistribution(generator, config)
    distance = distribution.distances(condition)[0]
    outside: tuple[float | None, float | None] = (None, None)
    if config.poses != "data":
        elevations, azimuths = poses.sample(_POSES, torch.Generator().manual_seed(_SEED))
        outside = _beyond(elevations, elevation), _beyond(azimuths, _nearest_turn(azimuths, azimuth))
    return Familiarity(
        code_distance=distance.item(),
        code_percentile=100 * (distribution.reference < distance).double().mean().item(),
        farthest_distance=distribution.reference.quantile(_FARTHEST).item(),
        elevation_outside=outside[0],
        azimuth_outside=outside[1],
    )


def _degrees(angle: float | None) -> float | None:
    return None if angle is None else round(math.degrees(angle), 2)


def _nearest_turn(angles: Tensor, angle: float) -> float:
    """The same angle, in the turn around the middle of others."""
    middle = (angles.min().item() + angles.max().item()) / 2
    return middle + math.remainder(angle - middle, 2 * math.pi)


def _beyond(angles: Tensor, angle: float) -> float:
    """How far an angle lies above (or, negative, below) all others; 0 within."""
    return max(angle - angles.max().item(), 0.0) + min(angle - angles.min().item(), 0.0)
