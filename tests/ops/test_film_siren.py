"""sdfgan.ops.film_siren: against the reference in float64, its sine, threads, instruction sets, rejections."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdfgan import _C, build_info
from sdfgan.ops import film_siren, reference


def network(images, width, layers, dtype=torch.float32, seed=0):
    """Weights, shifts and head of the size that an initialised FiLM-SIREN has, times its omega of 10."""
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return 2 * torch.rand(shape, dtype=torch.float64, generator=g) - 1

    weights = [uniform(images, width, 3) * 2] + [
        uniform(images, width, width) * (6 / width) ** 0.5 for _ in range(layers - 1)
    ]
    shifts = [uniform(images, 1, width) * 3 for _ in range(layers)]
    head = uniform(width) / width**0.5
    return [w.to(dtype) for w in weights], [s.to(dtype) for s in shifts], head.to(dtype)


def some_points(counts, dtype=torch.float32, seed=0):
    image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.int64))
    points = torch.rand((len(image), 3), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (2 * points - 1).to(dtype), image


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(0, 70), min_size=1, max_size=5),
    width=st.sampled_from([16, 32, 48, 64, 128]),
    layers=st.integers(1, 6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_matches_reference(counts, width, layers, dtype, seed):
    weights, shifts, head = network(len(counts), width, layers, dtype, seed)
    points, image = some_points(counts, dtype, seed)
    wide = ([w.double() for w in weights], [s.double() for s in shifts], head.double())
    expected = reference.film_siren(points.double(), image, *wide)
    actual = film_siren(points, image, weights, shifts, head)
    assert actual.dtype == dtype
    # A layer multiplies rounding errors by about two: its weights have variance two times that of its inputs.
    tolerance = 2e-7 * 2**layers * 4 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(actual.double(), expected, atol=tolerance, rtol=0)


def test_sine_is_exact_to_2e_7():
    phases = torch.linspace(-100, 100, 200_001)
    points = torch.stack([phases, torch.zeros_like(phases), torch.zeros_like(phases)], 1)
    weight, head = torch.zeros(1, 16, 3), torch.zeros(16)
    weight[0, 3, 0] = head[3] = 1
    sines = film_siren(points, torch.zeros(len(points), dtype=torch.int64), [weight], [torch.zeros(1, 1, 16)], head)
    assert (sines - phases.double().sin()).abs().max() < 2e-7


def test_the_same_for_any_number_of_threads_and_any_order_of_images():
    weights, shifts, head = network(3, 64, 4)
    points, image = some_points([1000, 3, 500])
    before = torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(film_siren(points, image, weights, shifts, head))
    torch.set_num_threads(before)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    order = torch.randperm(len(points))
    assert torch.equal(film_siren(points[order], image[order], weights, shifts, head), results[0][order])


def test_every_instruction_set_agrees():
    weights, shifts, head = network(2, 64, 4)
    points, image = some_points([40, 60])
    best = film_siren(points, image, weights, shifts, head)
    levels = build_info()["simd_compiled"]
    levels = levels[: levels.index(build_info()["simd"]) + 1]
    try:
        for level in levels:
            _C.set_simd(level)
            torch.testing.assert_close(film_siren(points, image, weights, shifts, head), best, atol=2e-5, rtol=0)
    finally:
        _C.set_simd("")


def test_points_of_no_image_give_nan():
    weights, shifts, head = network(2, 16, 2)
    points, _ = some_points([3])
    out = film_siren(points, torch.tensor([-1, 0, 2]), weights, shifts, head)
    assert out.isnan().tolist() == [True, False, True]


def test_opcheck():
    weights, shifts, head = network(2, 16, 2)
    points, image = some_points([5, 4])
    torch.library.opcheck(torch.ops.sdfgan.film_siren.default, (points, image, weights, shifts, head))


def test_rejections():
    weights, shifts, head = network(2, 16, 2)
    points, image = some_points([5, 4])
    with pytest.raises(ValueError, match=r"film_siren: points must be \[N, 3\] float32 or float64, got \[9, 2\]"):
        film_siren(points[:, :2].contiguous(), image, weights, shifts, head)
    with pytest.raises(ValueError, match=r"film_siren: the width must be a multiple of 16, got 12"):
        film_siren(points, image, [w[:, :12] for w in weights], shifts, head[:12])
    with pytest.raises(ValueError, match=r"film_siren: weights and shifts must be one per layer, got 2 and 1"):
        film_siren(points, image, weights, shifts[:1], head)
    with pytest.raises(ValueError, match=r"weights\[1\] must be \[B, W, W\]"):
        film_siren(points, image, [weights[0], weights[0]], shifts, head)
    with pytest.raises(RuntimeError, match="film_siren: not differentiable, but head requires grad"):
        film_siren(points, image, weights, shifts, head.requires_grad_())
