"""`--poses learned`, for images whose cameras nobody knows: a histogram of poses that is learned with the generator.

A discriminator's logit of a fake estimates log p_real - p_fake, so bins of the histogram whose fakes have higher logits
than others should become more frequent. Their log shares follow the mean logits of the bins, relative to that of all:
the natural gradient of the mean logit, by which the prior over poses plays the generator's game; and of the entropy.
It goes where expectation maximisation does, which multiplies the shares of a mixture by E[p_real / p_fake | bin].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdfgan.cameras import PoseDistribution, Range
from sdfgan.errors import UserError
from sdfgan.training.checkpoint import unpack_module
from sdfgan.training.files import write_text

ELEVATION_BINS, AZIMUTH_BINS = 8, 24
_RATE = 0.01  # change of a log share per step, for logits one standard deviation above the mean
_RATE_ELEVATION = 0.04  # the same of all bins of an elevation together, which no turn of the shapes can stand for
_ENTROPY = 0.2  # weight of the entropy, lest the views that the generator knows best, and passes with, take over
_MEMORY = 0.98  # of the sums that mean logits are taken from: fifty steps
_DOUBT = 2.0  # fakes of a mean logit are counted to those of each bin, lest few of them count for much
_FLOOR = 0.02  # of all poses, spread evenly over the bins, are the least that they have: no view is lost for ever
_CELL, _BORDER = 22, 46  # of the histogram's image, pixels


@dataclass(frozen=True)
class PoseHistogram(PoseDistribution):
    """Poses by the shares [E, A] of equal bins of the ranges of elevation and azimuth; uniform within a bin."""

    shares: Tensor

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """See `PoseDistribution.sample`."""
        device = None if generator is None else generator.device
        which, *within = torch.rand(3, n, generator=generator, device=device)
        edges = self.shares.to(which).flatten().cumsum(0)
        index = torch.searchsorted(edges, which * edges[-1], right=True).clamp(max=len(edges) - 1)
        rows, columns = self.shares.shape
        places = (index // columns + within[0]) / rows, (index % columns + within[1]) / columns
        spans = (self.elevation, self.azimuth)
        elevation, azimuth = (low + (high - low) * place for (low, high), place in zip(spans, places, strict=True))
        return elevation.clamp(-math.pi / 2, math.pi / 2), azimuth

    def bins(self, elevation: Tensor, azimuth: Tensor) -> Tensor:
        """The flat bin [N] int64 of each pose; poses outside of the ranges count to the nearest."""
        rows, columns = self.shares.shape
        return _bin(elevation, self.elevation, rows) * columns + _bin(self._turned(azimuth), self.azimuth, columns)

    def _turned(self, azimuth: Tensor) -> Tensor:
        """The same azimuths in the turn around the middle of their range."""
        middle = sum(self.azimuth) / 2
        return (azimuth - middle + math.pi).remainder(2 * math.pi) + middle - math.pi

    def compared(self, angles: Tensor) -> dict[str, float]:
        """How far it is from the true poses `angles` [N, 2] (elevation, azimuth), in nats: KL(true || learned) and the
        Jensen-Shannon divergence over its bins, and KL of each angle alone.

        Which side of a shape is its front, nobody can know from images: the truth is turned by whole degrees to where
        the KL divergence is least; `pose_turn` says how far. Where the azimuths are not those of a full turn it is not.
        `pose_outside` is the share of true poses that lie outside of the ranges.
        """
        learned = self.shares.double()
        outside = _is_outside(angles[:, 0], self.elevation)
        if not all_round(self.azimuth):
            outside |= _is_outside(self._turned(angles[:, 1]), self.azimuth)
        found = []
        for degrees in range(360 if all_round(self.azimuth) else 1):
            index = self.bins(angles[:, 0], angles[:, 1] + math.radians(degrees))
            true = torch.bincount(index, minlength=learned.numel()).view_as(learned).double() / len(index)
            found.append((_kl(true, learned), degrees, true))
        kl, degrees, true = min(found, key=lambda one: one[0])
        middle = (true + learned) / 2
        return {
            "pose_kl": kl,
            "pose_kl_elevation": _kl(true.sum(1), learned.sum(1)),
            "pose_kl_azimuth": _kl(true.sum(0), learned.sum(0)),
            "pose_js": (_kl(true, middle) + _kl(learned, middle)) / 2,
            "pose_turn": float(degrees),
            "pose_outside": outside.double().mean().item(),
        }

    def save_image(self, file: Path) -> None:
        """Write an SVG: the shares of the bins, darker where there are more, and those of each angle alone as bars."""
        rows, columns = self.shares.shape
        width, height = columns * _CELL, rows * _CELL
        parts = []

        def box(x: float, y: float, w: float, h: float, opacity: float) -> None:
            shape = f'x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}"'
            parts.append(f'<rect {shape} fill="#26c" fill-opacity="{opacity:.3f}"/>')

        def text(x: float, y: float, label: str, anchor: str = "middle") -> None:
            parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{label}</text>')

        shares = self.shares.double()
        for row, line in enumerate((shares / shares.max()).tolist()):
            for column, share in enumerate(line):
                box(column * _CELL, (rows - 1 - row) * _CELL, _CELL - 1, _CELL - 1, share)
        for column, share in enumerate((shares.sum(0) / shares.sum(0).max()).tolist()):
            box(column * _CELL, -4 - _BORDER * share, _CELL - 1, _BORDER * share, 0.5)
        for row, share in enumerate((shares.sum(1) / shares.sum(1).max()).tolist()):
            box(width + 4, (rows - 1 - row) * _CELL, _BORDER * share, _CELL - 1, 0.5)
        for place in range(5):
            text(width * place / 4, height + 16, f"{math.degrees(_at(self.azimuth, place / 4)):.0f}")
        for place in range(3):
            text(-6, height * (1 - place / 2) + 4, f"{math.degrees(_at(self.elevation, place / 2)):.0f}", "end")
        text(
            width / 2, height + 34, "learned shares of azimuths (across) and elevations (up), degrees, in their ranges"
        )
        view = f"{-_BORDER} {-_BORDER - 8} {width + 2 * _BORDER + 8} {height + 2 * _BORDER + 8}"
        style = 'font-family="sans-serif" font-size="12" style="background:#fff"'
        write_text(file, f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view}" {style}>{"".join(parts)}</svg>\n')


class PoseLearner(nn.Module):
    """The shares of a histogram over ranges (radians), which `learn` from verdicts on fakes."""

    shares: Tensor  # [E, A]
    sums: Tensor  # [2, E, A]: of the relative logits of fakes from each bin, lately; and how many those are

    def __init__(self, elevation: Range, azimuth: Range) -> None:
        super().__init__()
        self.spans = (elevation, azimuth)
        shape = (ELEVATION_BINS, AZIMUTH_BINS)
        self.register_buffer("shares", torch.full(shape, 1 / math.prod(shape)))
        self.register_buffer("sums", torch.zeros(2, *shape))

    @property
    def histogram(self) -> PoseHistogram:
        """What has been learned so far."""
        return PoseHistogram(*self.spans, self.shares.clone())

    def load(self, tensors: dict[str, Tensor], source: Path) -> PoseHistogram:
        """What the run of a checkpoint has learned. Raises UserError, naming `source`, where that is missing or bad."""
        unpack_module(self, tensors, "poses", source)
        if not (self.shares > 0).all():
            raise UserError(f"{source}: tensor poses.shares must be positive")
        if not abs(float(self.shares.double().sum()) - 1) < 1e-3:
            raise UserError(f"{source}: tensor poses.shares must add up to 1")
        return self.histogram

    @property
    def spread(self) -> Tensor:
        """The share of the ranges that the poses are spread over: exp(entropy) / bins, 1 where they are uniform."""
        return torch.exp(-(self.shares * self.shares.log()).sum()) / self.shares.numel()

    @torch.no_grad()
    def learn(self, logits: Tensor, axes: Tensor, rate: float = 1.0) -> None:
        """A step, from the logits [B] of fakes that cameras with `axes` [B, 3, 3] see; none if any is not finite.

        `rate`, up to 1, is a factor on how far the shares move.
        """
        relative = (logits - logits.mean()) / logits.std(unbiased=False).clamp(min=1e-6)
        finite = relative.isfinite().all()  # the device decides: nothing waits for it
        towards, histogram = axes[:, 2], self.histogram
        angles = towards[:, 1].clamp(-1, 1).asin(), torch.atan2(towards[:, 0], towards[:, 2])
        # A product with ones and zeros, since sums by index come in any order on a GPU.
        chosen = F.one_hot(histogram.bins(*angles), self.shares.numel()).to(self.shares)
        now = torch.stack([relative, torch.ones_like(relative)]).to(self.shares) @ chosen  # [2, E A]
        sums = _MEMORY * self.sums + now.view_as(self.sums)
        rows, columns = self.shares.shape
        smooth = _near(rows, False, self.shares) @ sums @ _near(columns, all_round(self.spans[1]), self.shares)
        level = smooth.sum(2, keepdim=True)
        logs = self.shares.log()
        rarer = (self.shares * logs).sum() - logs  # the natural gradient of the entropy
        step = _RATE * (smooth[0] / (smooth[1] + _DOUBT) + _ENTROPY * rarer)
        logs = logs + rate * (step + _RATE_ELEVATION * level[0] / (level[1] + _DOUBT))
        moved = logs.flatten().softmax(0).clamp(min=_FLOOR / logs.numel())
        self.sums.copy_(torch.where(finite, sums, self.sums))
        self.shares.copy_(torch.where(finite, (moved / moved.sum()).view_as(self.shares), self.shares))


def all_round(azimuth: Range) -> bool:
    """Whether the range is a full turn, whose ends meet."""
    return azimuth[1] - azimuth[0] > 2 * math.pi - 1e-6


def _bin(angle: Tensor, span: Range, count: int) -> Tensor:
    return ((angle - span[0]) / (span[1] - span[0]) * count).floor().clamp(0, count - 1).long()


def _is_outside(angle: Tensor, span: Range) -> Tensor:
    return (angle < span[0] - 1e-6) | (angle > span[1] + 1e-6)


def _at(span: Range, place: float) -> float:
    return span[0] + (span[1] - span[0]) * place


def _kl(p: Tensor, q: Tensor) -> float:
    """KL(p || q) of shares, in nats; infinite where q has none of what p has."""
    return torch.special.xlogy(p, p / q).sum().item()


def _near(count: int, cyclic: bool, like: Tensor) -> Tensor:
    """Weights [count, count] by which bins share what is seen in them: a Gaussian of one bin."""
    place = torch.arange(count, device=like.device)
    apart = (place[:, None] - place).abs()
    if cyclic:
        apart = apart.minimum(count - apart)
    return torch.exp(-apart.to(like.dtype).square() / 2)
