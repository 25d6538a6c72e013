"""sdfgan.ops.hash_encoding: against the reference, its derivatives, and torch's checks of operators."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sdfgan.ops import hash_encoding, hash_encoding_gradient, hash_table_begins, reference

CELLS = (2, 5, 11)
SIZE = 64  # of the table: the first level fits into it in two dimensions, and the coarsest in three


def grid(dims: int, features: int, dtype: torch.dtype, device: torch.device, count: int) -> tuple[Tensor, Tensor]:
    """Points, some of them outside the cube, and a table."""
    random = torch.Generator().manual_seed(dims * 100 + features)
    points = torch.rand(count, dims, generator=random, dtype=torch.float64) * 1.2 - 0.1
    entries = hash_table_begins(dims, CELLS, SIZE)[-1]
    table = torch.randn(entries, features, generator=random, dtype=torch.float64)
    return points.to(device, dtype), table.to(device, dtype)


@settings(max_examples=40, deadline=None)
@given(
    dims=st.sampled_from([2, 3]),
    features=st.sampled_from([1, 2, 4, 8]),
    count=st.sampled_from([0, 1, 31, 77]),
    smooth=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_matches_reference(device, assert_close, dims, features, count, smooth, dtype):
    points, table = grid(dims, features, dtype, device, count)
    expected = reference.hash_encoding(points.double(), table.double(), CELLS, SIZE, smooth=smooth)
    actual = hash_encoding(points, table, CELLS, SIZE, smooth=smooth)
    assert actual.dtype == dtype and actual.shape == (count, len(CELLS) * features)
    # a weight's rounding is that of the scaled coordinate, in the finest level's cells
    scale = 2 * max(CELLS) if dtype == torch.float32 else 1
    assert_close(actual / scale, (expected / scale).to(dtype))


@pytest.mark.parametrize("smooth", [False, True])
def test_gradients_match_the_reference(device, assert_close, smooth):
    def gradients(function):
        points, table = (x.requires_grad_() for x in grid(3, 4, torch.float64, device, 5000))
        out = function(points, table, CELLS, SIZE, smooth=smooth)
        return torch.autograd.grad(out.sin().sum(), (points, table))

    for actual, expected in zip(gradients(hash_encoding), gradients(reference.hash_encoding), strict=True):
        assert_close(actual, expected)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("smooth", [False, True])
def test_gradcheck(device, dims, smooth):
    points, table = grid(dims, 2, torch.float64, device, 3)
    inputs = (points.requires_grad_(), table.requires_grad_())

    def encode(points, table):
        return hash_encoding(points, table, CELLS, SIZE, smooth=smooth)

    assert torch.autograd.gradcheck(encode, inputs)
    assert torch.autograd.gradgradcheck(encode, inputs)


def test_directional_operators_are_differentiable(device):
    points, table = grid(3, 2, torch.float64, device, 2)
    direction, gradient = torch.randn_like(points), torch.randn(2, 6, dtype=torch.float64, device=device)
    tensors = [x.requires_grad_() for x in (points, table, direction, gradient)]
    along, by_table = torch.ops.sdfgan.hash_encoding, torch.ops.sdfgan.hash_encoding_table_gradient
    assert torch.autograd.gradcheck(lambda p, t, d: along(p, t, d, CELLS, SIZE, True), tensors[:3])
    assert torch.autograd.gradcheck(lambda p, d, g: by_table(p, d, g, 2, CELLS, SIZE, True), (tensors[0], *tensors[2:]))


def test_no_third_derivative(device):
    points, table = grid(3, 1, torch.float64, device, 2)
    points.requires_grad_()
    x = hash_encoding(points, table, CELLS, SIZE, smooth=True).sum()
    for _ in range(2):
        (gradient,) = torch.autograd.grad(x, points, create_graph=True)
        x = gradient.square().sum()
    with pytest.raises(RuntimeError, match="hash_encoding: has no third derivative"):
        torch.autograd.grad(x, points)


def test_a_dense_level_interpolates_a_linear_function_exactly(device):
    """An independent property: features that are linear in the corner's position are linear everywhere."""
    n = 4
    ticks = (torch.arange(n + 2, dtype=torch.float64, device=device) - 0.5) / n
    z, y, x = torch.meshgrid(ticks, ticks, ticks, indexing="ij")  # x is the fastest
    table = (1 + 2 * x - 3 * y + 5 * z).reshape(-1, 1)
    points = torch.rand(500, 3, dtype=torch.float64, device=device)
    wanted = 1 + points @ points.new_tensor([[2.0], [-3.0], [5.0]])
    torch.testing.assert_close(hash_encoding(points, table, (n,), 512), wanted)


def test_beyond_the_cube_features_are_those_of_its_faces(device):
    _, table = grid(3, 2, torch.float64, device, 0)
    points = torch.tensor([[-3.0, 0.4, 0.6], [0.0, 0.4, 0.6]], dtype=torch.float64, device=device).requires_grad_()
    out = hash_encoding(points, table, CELLS, SIZE)
    assert torch.equal(out[0], out[1])
    (gradient,) = torch.autograd.grad(out.sum(), points)
    assert gradient[0, 0] == 0 and gradient[1, 0] != 0


def test_not_finite_points(device):
    _, table = grid(2, 1, torch.float32, device, 0)
    points = torch.tensor([[math.nan, 0.5], [math.inf, 0.5], [1.0, 0.5]], device=device)
    out = hash_encoding(points, table, CELLS, SIZE)
    assert out[0].isnan().all() and torch.equal(out[1], out[2])


def test_threads_do_not_change_the_result():
    points, table = (x.requires_grad_() for x in grid(3, 4, torch.float32, torch.device("cpu"), 20_000))
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            out = hash_encoding(points, table, CELLS, SIZE)
            results.append((out, *torch.autograd.grad(out.square().sum(), (points, table))))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize("with_direction", [False, True])
def test_opcheck(device, with_direction):
    points, table = grid(3, 2, torch.float32, device, 5)
    direction = torch.randn_like(points) if with_direction else None
    settings = (list(CELLS), SIZE, True)
    gradient = torch.randn(5, 6, device=device)
    first = (points.requires_grad_(), table.requires_grad_(), direction, *settings)
    torch.library.opcheck(torch.ops.sdfgan.hash_encoding.default, first)
    torch.library.opcheck(
        torch.ops.sdfgan.hash_encoding_table_gradient.default, (points, direction, gradient, 2, *settings)
    )
    second = (points.detach(), table.detach(), direction, gradient, *settings)
    torch.library.opcheck(torch.ops.sdfgan.hash_encoding_points_gradient.default, second)


def test_compiles(device, assert_close):
    points, table = grid(3, 2, torch.float32, device, 50)
    compiled = torch.compile(hash_encoding, fullgraph=True, backend="aot_eager")
    assert_close(compiled(points, table, CELLS, SIZE), hash_encoding(points, table, CELLS, SIZE))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"points": torch.zeros(4, 4)},
            r"hash_encoding: points must be \[N, 2\] or \[N, 3\], got \[4, 4\]",
        ),
        ({"points": torch.zeros(4, 3).half()}, "points must be .* got .* float16"),
        ({"table": torch.zeros(9, 2)}, r"table must be \[\d+, F\] float32, got \[9, 2\]"),
        ({"table": torch.zeros(192, 3)}, "a level must have 1, 2, 4 or 8 features, got 3"),
        ({"cells": ()}, r"cells must be 1 to 32 numbers from 1 to 1048576, got \[\]"),
        ({"cells": (0,)}, "cells must be"),
        ({"table_size": 48}, r"table_size must be a power of two up to 2\^28, got 48"),
    ],
)
def test_rejects(device, change, message):
    points, table = grid(3, 2, torch.float32, torch.device("cpu"), 4)
    arguments = {"points": points, "table": table, "cells": CELLS, "table_size": SIZE} | change
    arguments = {name: x.to(device) if isinstance(x, Tensor) else x for name, x in arguments.items()}
    with pytest.raises(ValueError, match=message):
        hash_encoding(**arguments)


@pytest.mark.parametrize("smooth", [False, True])
def test_the_gradient_alone_is_that_of_autograd(device, assert_close, smooth):
    points, table = (x.requires_grad_() for x in grid(3, 2, torch.float64, device, 50))
    weights = torch.randn(50, len(CELLS) * 2, dtype=torch.float64, device=device, requires_grad=True)
    features = hash_encoding(points, table, CELLS, SIZE, smooth=smooth)
    (expected,) = torch.autograd.grad((features * weights).sum(), points, create_graph=True)
    actual = hash_encoding_gradient(points, table, weights, CELLS, SIZE, smooth=smooth)
    assert_close(actual, expected)
    for mine, theirs in zip(
        *(torch.autograd.grad(x.square().sum(), (points, table, weights)) for x in (actual, expected)), strict=True
    ):
        assert_close(mine, theirs)
    with pytest.raises(ValueError, match=r"hash_encoding_points_gradient: gradient must be"):
        hash_encoding_gradient(points, table, weights[:, 1:].contiguous(), CELLS, SIZE)
