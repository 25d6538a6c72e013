"""What goes wrong in a GAN is noticed, once, with what to try; what goes well is not."""

from __future__ import annotations

import pytest
import torch

from sdfgan.training.health import WINDOW, Health, separate_parts

WELL = {
    "variety": 0.9,
    "accuracy": 0.7,
    "gap": 0.5,
    "logit_spread": 0.3,
    "gradient_norm_d": 2.0,
    "empty": 0.0,
    "full": 0.0,
    "skipped": 0.0,
}


def warnings(steps: int = WINDOW, notes: dict[str, float] | None = None, **numbers: float) -> list[str]:
    health = Health()
    health.note(notes or {})
    found = []
    for step in range(1, steps + 1):
        found += [warning.name for warning in health.check(step, {**WELL, **numbers})]
    return found


@pytest.mark.parametrize(
    ("numbers", "name"),
    [
        ({}, None),
        ({"variety": 0.05}, "collapse"),
        ({"accuracy": 1.0, "gap": 9.0}, "discriminator wins"),
        ({"accuracy": 1.0, "gap": 0.5}, None),  # barely, but rightly: as it should be
        ({"logit_spread": 1e-5, "gradient_norm_d": 1e-6}, "discriminator vanished"),
        ({"moments": 0.2}, "discriminator at the pole"),
        ({"moments": 30.0}, None),
        ({"empty": 0.8}, "empty"),
        ({"full": 0.9}, "full"),
        ({"skipped": 0.1}, "not finite"),
        ({"gap": float("nan")}, None),
    ],
)
def test_symptoms(numbers: dict[str, float], name: str | None) -> None:
    assert warnings(**numbers) == ([] if name is None else [name])


def test_blobs_are_compared_with_real_pictures() -> None:
    assert warnings(notes={"blobs": 0.5, "real_blobs": 0.05}) == ["blobs"]
    assert warnings(notes={"blobs": 0.5, "real_blobs": 0.45}) == []


def test_a_warning_is_repeated_only_after_a_while_and_says_what_to_try() -> None:
    assert warnings(steps=WINDOW - 1, empty=1.0) == []
    assert warnings(steps=WINDOW + 1500, empty=1.0) == ["empty", "empty"]
    health = Health()
    found = [health.check(step, {**WELL, "empty": 0.75}) for step in range(1, WINDOW + 1)][-1]
    assert "75% of the silhouettes are empty; try a smaller --learning-rate-generator" in found[0].message


def test_separate_parts() -> None:
    alpha = torch.zeros(4, 1, 32, 32)
    alpha[0, :, 8:24, 8:24] = 1
    alpha[1] = alpha[0]
    alpha[1, :, 2:5, 2:5] = 1  # a blob
    alpha[2] = alpha[0]
    alpha[2, :, 2, 2] = 1  # a speck
    assert separate_parts(alpha) == 0.25
    assert separate_parts(alpha[:0]) == 0
