"""Discriminators, losses and augmentation against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sdfgan.gan import DISCRIMINATORS, augment
from sdfgan.gan.discriminators import (
    CoordConv,
    EqualConv,
    add_spectral_norm,
    blur_down,
    minibatch_stddev,
    update_spectral_norm,
)
from sdfgan.gan.losses import (
    ADVERSARIAL_LOSSES,
    back_face_loss,
    gradient_penalty,
    minimal_surface_loss,
    r1_penalty,
    sphere_logit,
    top_k_weights,
)


@pytest.mark.parametrize("name", DISCRIMINATORS)
@pytest.mark.parametrize("resolution", [16, 64])
def test_a_verdict_on_each_picture(name: str, resolution: int) -> None:
    network = DISCRIMINATORS[name]([resolution], 8, 32, image_channels=3, latent_size=5, guess_direction=True)
    verdict = network(torch.rand(6, 3, resolution, resolution))
    assert [tuple(part.shape) for part in verdict] == [(6,), (6, 5), (6, 3)]
    assert verdict.logit.std() > 0
    alone = DISCRIMINATORS[name]([resolution], 8)(torch.rand(2, 4, resolution, resolution))
    assert alone.latent.shape == (2, 0) and alone.direction.shape == (2, 0)
    with pytest.raises(ValueError, match="images must be"):
        network(torch.rand(6, 4, resolution, resolution))


@pytest.mark.parametrize("size", [4, 6])
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_sets_of_images_are_judged_by_themselves(name: str, size: int) -> None:
    network = DISCRIMINATORS[name]([16], 8)
    sets = torch.rand(3, size, 4, 16, 16) * torch.tensor([1.0, 0.1, 0.0]).view(3, 1, 1, 1, 1)
    together = network(sets.flatten(0, 1), sets=3).logit
    torch.testing.assert_close(together, torch.cat([network(one).logit for one in sets]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["progressive", "strided"])
def test_a_new_resolution_fades_in(name: str) -> None:
    network = DISCRIMINATORS[name]([16, 32], 8)
    pictures = torch.rand(3, 4, 32, 32)
    half = F.avg_pool2d(pictures, 2)
    old, new = network(half).logit, network(pictures).logit
    torch.testing.assert_close(network(pictures, 0.0).logit, old, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(network(pictures, 1.0).logit, new)
    assert not torch.allclose(old, new)
    with pytest.raises(ValueError, match="takes one resolution"):
        DISCRIMINATORS["small"]([16, 32])


def test_layers() -> None:
    same = torch.rand(1, 3, 4, 4).expand(8, -1, -1, -1)
    assert minibatch_stddev(same).max() < 2e-4
    half = torch.zeros(4, 3, 4, 4, dtype=torch.float16, requires_grad=True)
    minibatch_stddev(half).sum().backward()
    assert half.grad is not None and half.grad.isfinite().all(), "equal images, in half precision too"
    mixed = same.clone()
    mixed[0] += 10  # groups are pictures 0, 2, 4, 6 and 1, 3, 5, 7
    spread = minibatch_stddev(mixed)[:, 0, 0, 0]
    assert (spread[::2] > 1).all() and (spread[1::2] < 2e-4).all()
    torch.testing.assert_close(blur_down(torch.ones(1, 2, 8, 8))[..., 1:-1, 1:-1], torch.ones(1, 2, 2, 2))
    coordinates = CoordConv(1, 2, 1)
    with torch.no_grad():
        coordinates.weight.copy_(torch.tensor([[0.0, 1, 0], [0, 0, 1]])[:, :, None, None])
        coordinates.bias.zero_()
    where = coordinates(torch.zeros(1, 1, 3, 5))[0]
    assert where[0, :, 0].tolist() == [-1, 0, 1] and where[1, 0].tolist() == [-1, -0.5, 0, 0.5, 1]
    equal = EqualConv(64, 32, 3)
    assert equal.weight.std().item() == pytest.approx(1, rel=0.1)
    assert equal(torch.randn(4, 64, 8, 8))[..., 1:-1, 1:-1].std().item() == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_spectral_norm_bounds_every_weight(name: str) -> None:
    network = DISCRIMINATORS[name]([16], 8)
    add_spectral_norm(network)
    for _ in range(200):
        update_spectral_norm(network)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network(torch.rand(4, 4, 16, 16)).logit.sum().backward()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items()), "a pass changes nothing"
    weights = [module.weight for module in network.modules() if hasattr(module, "parametrizations")]
    assert len(weights) > 4
    for weight in weights:
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, rel=0.02)


def test_adversarial_losses() -> None:
    zero = torch.zeros(4)
    logistic = ADVERSARIAL_LOSSES["logistic"]
    assert logistic.generator(zero).mean().item() == pytest.approx(math.log(2))
    assert (logistic.real(zero) + logistic.fake(zero)).mean().item() == pytest.approx(2 * math.log(2))
    hinge = ADVERSARIAL_LOSSES["hinge"]
    assert hinge.real(zero + 2).sum() == hinge.fake(zero - 2).sum() == 0 and hinge.real(zero).mean() == 1
    for name, loss in ADVERSARIAL_LOSSES.items():
        up, down = zero + 0.5, zero - 0.5
        assert (loss.generator(up) < loss.generator(down)).all(), name
        assert (loss.real(up) < loss.real(down)).all() and (loss.fake(down) < loss.fake(up)).all(), name


def test_sphere_distances() -> None:
    features = torch.tensor([[0.0, 0], [1, 0], [0, 1e6]])
    logits = sphere_logit(features, moments=1)
    torch.testing.assert_close(logits, torch.tensor([math.pi, math.pi / 2, 0.0]), atol=1e-3, rtol=0)
    assert sphere_logit(features[1:2]).item() == pytest.approx(sum((math.pi / 2) ** r for r in (1, 2, 3)), rel=1e-4)
    features = torch.zeros(1, 2, requires_grad=True)
    sphere_logit(features).sum().backward()
    assert features.grad is not None and features.grad.isfinite().all()


def test_penalties_of_a_linear_discriminator() -> None:
    weight = torch.rand(4, 8, 8, requires_grad=True)

    def linear(images: torch.Tensor) -> torch.Tensor:
        return (images * weight).sum((1, 2, 3))

    penalty = r1_penalty(linear, torch.rand(3, 4, 8, 8))
    torch.testing.assert_close(penalty, weight.square().sum())
    penalty.backward()
    torch.testing.assert_close(weight.grad, 2 * weight)
    of_probability = r1_penalty(linear, torch.zeros(3, 4, 8, 8), "probability")  # the sigmoid's slope at 0 is 1/4
    torch.testing.assert_close(of_probability, weight.square().sum() / 16)
    between = gradient_penalty(linear, torch.rand(3, 4, 8, 8), torch.rand(3, 4, 8, 8), torch.rand(3))
    torch.testing.assert_close(between, (weight.norm() - 1).square())


def test_back_face_loss() -> None:
    axes = torch.eye(3)[None]  # the camera is on +z
    normals = torch.zeros(1, 3, 2, 2)
    normals[0, 2] = torch.tensor([[1.0, -1], [-0.5, 0]])
    alpha = torch.tensor([[1.0, 1], [1, 0]])[None, None]
    assert back_face_loss(normals, alpha, axes).item() == pytest.approx((0 + 0.5 + 0.25) / 3)


def test_minimal_surface_loss() -> None:
    sdf = torch.tensor([0.0, 0.1, -0.1, 5.0], requires_grad=True)
    loss = minimal_surface_loss(sdf)
    near = math.exp(-1.2)
    assert loss.item() == pytest.approx((1 + 2 * near) / 4)
    loss.backward()  # a step against it moves what is near a surface away from it, on either side
    torch.testing.assert_close(sdf.grad, torch.tensor([0, -3 * near, 3 * near, 0]))


def test_top_k_keeps_the_best() -> None:
    logits = torch.tensor([3.0, 1, 2, 0])
    assert top_k_weights(logits, 0, 10, 0.5).tolist() == [1, 1, 1, 1]
    assert top_k_weights(logits, 10**6, 10, 0.5).tolist() == [2, 0, 2, 0]
    assert top_k_weights(logits, 10**6, 10, 0.0).tolist() == [4, 0, 0, 0]
    # After n intervals 0.99^n of the pictures are kept, rounded up: 0.99^20 = 0.818.
    assert (top_k_weights(torch.arange(1000.0), 20 * 7, 7, 0.5) > 0).sum() == 818


# ------------------------------------------------------------------------------------------------------- augmentation


def test_no_augmentation_is_the_identity() -> None:
    pictures = torch.rand(5, 4, 16, 16)
    pictures[:, :3] *= pictures[:, 3:]
    drawn = augment.draw(5, 0.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(augment.apply(pictures, drawn), pictures, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("channels", [3, 4])
def test_augmented_pictures_stay_premultiplied_and_differentiable(channels: int) -> None:
    pictures = torch.rand(32, 4, 16, 16)
    pictures[:, :3] *= pictures[:, 3:]
    pictures = pictures[:, :channels].requires_grad_()
    drawn = augment.draw(32, 1.0, torch.Generator().manual_seed(0))
    augmented = augment.apply(pictures, drawn)
    assert augmented.shape == pictures.shape and not torch.allclose(augmented, pictures, atol=0.1)
    if channels == 4:
        assert (augmented[:, :3] <= augmented[:, 3:] + 1e-5).all()
    augmented.sum().backward()
    assert pictures.grad is not None and pictures.grad.abs().sum() > 0


def test_blur_and_noise() -> None:
    point = torch.zeros(1, 1, 21, 21)
    point[0, 0, 10, 10] = 1
    blurred = augment.blur(point, 2.0)[0, 0]
    offsets = torch.arange(21.0) - 10
    assert blurred.sum().item() == pytest.approx(1, abs=1e-5)
    assert (blurred.sum(0) * offsets.square()).sum().sqrt().item() == pytest.approx(2, rel=0.03)
    torch.testing.assert_close(augment.blur(torch.ones(1, 2, 8, 8), 5.0), torch.ones(1, 2, 8, 8))
    seeds = torch.tensor([5, 6])
    noisy = augment.instance_noise(torch.zeros(2, 4, 64, 64), 0.5, seeds)
    assert noisy.std().item() == pytest.approx(0.5, rel=0.02) and not torch.equal(noisy[0], noisy[1])
    assert torch.equal(augment.instance_noise(torch.zeros(1, 4, 64, 64), 0.5, seeds[1:])[0], noisy[1])
    assert [augment.fading(2.0, 10, step) for step in (0, 5, 10, 20)] == [2, 1, 0, 0]
    assert augment.fading(2.0, 0, 0) == 0


def test_augmentation_follows_overfitting() -> None:
    assert augment.adjusted(0.5, 0.9, 0.6, 100, 1000) == pytest.approx(0.6)
    assert augment.adjusted(0.5, 0.1, 0.6, 100, 1000) == pytest.approx(0.4)
    assert augment.adjusted(0.95, 0.9, 0.6, 100, 1000) == 1 and augment.adjusted(0.05, 0.1, 0.6, 100, 1000) == 0
