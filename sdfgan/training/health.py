"""Noticing, while it trains, that a GAN is going wrong, and warning of it with what to try."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import Tensor

from sdfgan.training.steps import Numbers


class TrainingWarning(NamedTuple):
    """What is wrong, and what to try."""

    name: str
    message: str


class Symptom(NamedTuple):
    """A way in which training goes wrong: `is_present` looks at numbers averaged over the last `WINDOW` steps."""

    name: str
    needs: set[str]  # the numbers it looks at
    is_present: Callable[[Numbers], bool]
    message: str  # a format string over the numbers


WINDOW = 100
_STEPS_BETWEEN = 1000  # the same warning is not repeated sooner
_SMALLEST_BLOB = 0.01  # share of the silhouette that a separate part must have to count

SYMPTOMS = (
    Symptom(
        "collapse",
        {"variety"},
        lambda n: n["variety"] < 0.15,
        "mode collapse: the variety of images is {variety:.0%} of that of real ones; try a larger --r1-gamma or "
        "--batch-size, a smaller --learning-rate-generator, or go back to an earlier checkpoint with --load-dir",
    ),
    Symptom(
        "discriminator wins",
        {"accuracy", "gap"},
        lambda n: n["accuracy"] > 0.99 and n["gap"] > 4,
        "the discriminator classifies {accuracy:.1%} of the images correctly, so the generator learns little; try a "
        "larger --r1-gamma, a smaller --learning-rate-discriminator, --ada-target 0.6, or --blur 2 --blur-steps 1000",
    ),
    Symptom(
        "discriminator vanished",
        {"logit_spread", "gradient_norm_d"},
        lambda n: n["logit_spread"] < 1e-3 and n["gradient_norm_d"] < 1e-4,
        "the discriminator gives every image the same logit (spread of logits {logit_spread:.1g}); try a smaller "
        "--r1-gamma or a larger --learning-rate-discriminator",
    ),
    Symptom(
        "discriminator at the pole",
        {"moments"},
        lambda n: n["moments"] < 1,
        "the discriminator of the sphere loss maps reals and fakes alike to the pole (moments {moments:.2f} of 44), "
        "where they cannot be distinguished; try a smaller --learning-rate-discriminator, or --gan-loss logistic",
    ),
    Symptom(
        "empty",
        {"empty"},
        lambda n: n["empty"] > 0.5,
        "{empty:.0%} of the silhouettes are empty; try a smaller --learning-rate-generator or a larger "
        "--eikonal-weight, and check that the images' objects are inside the view (--fov)",
    ),
    Symptom(
        "full",
        {"full"},
        lambda n: n["full"] > 0.5,
        "{full:.0%} of the silhouettes fill the image; opaque photographs have no silhouette to learn from: give "
        "images with alpha, --background R G B, or --channels 3",
    ),
    Symptom(
        "blobs",
        {"blobs", "real_blobs"},
        lambda n: n["blobs"] > n["real_blobs"] + 0.2,
        "{blobs:.0%} of the shapes have separate parts ({real_blobs:.0%} of the real images do): floating blobs; try "
        "a larger --r1-gamma or --eikonal-weight, or a smaller --omega-hidden",
    ),
    Symptom(
        "not finite",
        {"skipped"},
        lambda n: n["skipped"] > 0.02,
        "{skipped:.0%} of the steps were skipped because a gradient was not finite; try a smaller "
        "--learning-rate-generator, or --precision fp32",
    ),
)


class Health:
    """Watches the numbers of a run; `check` returns what is newly wrong."""

    def __init__(self) -> None:
        self._recent: dict[str, deque[float]] = {}
        self._latest: Numbers = {}
        self._warned_at: dict[str, int] = {}

    def note(self, numbers: Numbers) -> None:
        """Take in numbers that are measured now and then: the latest counts."""
        self._latest |= numbers

    def check(self, step: int, numbers: Numbers) -> list[TrainingWarning]:
        """Take in a step's numbers. There is no warning before the first full window."""
        for name, value in numbers.items():
            if math.isfinite(value):
                self._recent.setdefault(name, deque(maxlen=WINDOW)).append(value)
        means = {name: sum(values) / len(values) for name, values in self._recent.items() if len(values) == WINDOW}
        means |= self._latest
        found = []
        for symptom in SYMPTOMS:
            if not symptom.needs <= means.keys() or not symptom.is_present(means):
                continue
            if step - self._warned_at.get(symptom.name, -_STEPS_BETWEEN) >= _STEPS_BETWEEN:
                self._warned_at[symptom.name] = step
                found.append(TrainingWarning(symptom.name, symptom.message.format(**means)))
        return found


def separate_parts(alpha: Tensor) -> float:
    """Share of silhouettes [N, 1, H, W] of more than one part that has at least 1% of its pixels."""
    from scipy import ndimage

    several = 0
    for silhouette in (alpha[:, 0] > 0.5).cpu().numpy():
        labels, count = ndimage.label(silhouette, structure=np.ones((3, 3)))
        sizes = np.bincount(labels.ravel())[1:] if count else np.zeros(0)
        several += int((sizes >= _SMALLEST_BLOB * max(sizes.sum(), 1)).sum() > 1)
    return several / max(len(alpha), 1)
