"""The discriminator and the losses against their definitions."""

from __future__ import annotations

import math

import pytest
import torch

from sdfgan.gan.discriminator import Discriminator, minibatch_stddev
from sdfgan.gan.losses import discriminator_loss, eikonal_loss, generator_loss, r1_penalty


@pytest.mark.parametrize("resolution", [16, 32, 64])
def test_one_logit_per_picture(resolution: int) -> None:
    assert Discriminator(resolution, 8)(torch.rand(5, 4, resolution, resolution)).shape == (5,)


def test_minibatch_stddev_is_zero_for_equal_pictures_and_tells_groups_apart() -> None:
    same = torch.rand(1, 3, 4, 4).expand(8, -1, -1, -1)
    assert minibatch_stddev(same).max() < 2e-4
    mixed = same.clone()
    mixed[0] += 10  # groups are pictures 0, 2, 4, 6 and 1, 3, 5, 7
    spread = minibatch_stddev(mixed)[:, 0, 0, 0]
    assert (spread[::2] > 1).all() and (spread[1::2] < 2e-4).all()


def test_logistic_losses() -> None:
    zero = torch.zeros(4)
    assert generator_loss(zero).item() == pytest.approx(math.log(2))
    assert discriminator_loss(zero, zero).item() == pytest.approx(2 * math.log(2))
    assert generator_loss(zero + 50).item() < 1e-6
    assert discriminator_loss(zero + 50, zero - 50).item() < 1e-6


def test_r1_of_a_linear_discriminator_is_its_squared_norm() -> None:
    weight = torch.rand(4, 8, 8, requires_grad=True)
    penalty = r1_penalty(lambda images: (images * weight).sum((1, 2, 3)), torch.rand(3, 4, 8, 8))
    torch.testing.assert_close(penalty, weight.square().sum())
    penalty.backward()
    torch.testing.assert_close(weight.grad, 2 * weight)


def test_eikonal_loss() -> None:
    gradients = torch.tensor([[1.0, 0, 0], [0, 3, 0], [0, 0, 0]], requires_grad=True)
    loss = eikonal_loss(gradients)
    assert loss.item() == pytest.approx((0 + 4 + 1) / 3, rel=1e-5)
    loss.backward()
    assert gradients.grad.isfinite().all()
    assert eikonal_loss(torch.zeros(0, 3)).item() == 0
