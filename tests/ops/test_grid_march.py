"""sdfgan.ops.march_count, march_samples and march_reached: against the reference, in one round and in many."""

from __future__ import annotations

import math
from itertools import chain, repeat

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sdfgan.ops import GridMarch, MarchSamples, march_count, march_reached, march_samples, reference

OP = torch.ops.sdfgan
LIMIT = -math.log(1e-3)


def some_march(rays=9, resolution=7, contracted=False, seed=0, dtype=torch.float64, device="cpu"):
    """Through a grid of which a third is occupied; some rays begin behind their end."""
    g = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(rays, 3, generator=g, dtype=dtype), dim=1)
    origins = 0.7 * torch.randn(rays, 3, generator=g, dtype=dtype)
    near = torch.rand(rays, generator=g, dtype=dtype)
    far = near + (20 if contracted else 1.5) * torch.rand(rays, generator=g, dtype=dtype) - 0.1
    jitter = torch.rand(rays, generator=g, dtype=dtype)
    occupied = torch.rand(resolution**3, generator=g) < 0.35
    tensors = (x.to(device) for x in (origins, directions, near, far, jitter, occupied))
    return GridMarch(*tensors, resolution, 0.031, 0.65 if contracted else math.inf)


def fog(points: Tensor, directions: Tensor) -> Tensor:
    """Thin and thick in places."""
    return 20 * (1 + (9 * points).sin().prod(1)) ** 4 + directions[:, 0].abs()


def marched(march: GridMarch, rounds: list[int], limit: float) -> tuple[MarchSamples, Tensor, int]:
    """In rounds, the last one of which is repeated."""
    depth, reached = torch.zeros_like(march.near), march.near.new_zeros(len(march.near) + 1, dtype=torch.int64)
    first, asked = None, 0
    for most in chain(rounds, repeat(rounds[-1])):
        offsets, following = march_count(march, most, first)
        assert offsets.diff().max() <= most if len(depth) else len(offsets) == 1
        count = int(offsets[-1])
        if count == 0:
            break
        some = march_samples(march, offsets, count, first)
        march_reached(fog(some.points, some.directions), some.deltas, offsets, depth, reached, following, limit)
        asked, first = asked + count, following
    offsets = reached.cumsum(0)
    return march_samples(march, offsets, int(offsets[-1])), offsets, asked


@settings(max_examples=60, deadline=None)
@given(
    rays=st.integers(0, 12),
    resolution=st.integers(1, 12),
    contracted=st.booleans(),
    rounds=st.sampled_from([[1], [2, 3], [4, 16], [10**6]]),
    limit=st.sampled_from([0.01, 1.0, LIMIT, math.inf]),
    seed=st.integers(0, 999),
)
def test_matches_reference(device, assert_close, rays, resolution, contracted, rounds, limit, seed):
    march = some_march(rays, resolution, contracted, seed, device=device)
    samples, offsets, asked = marched(march, rounds, limit)
    expected, expected_offsets = reference.grid_march(march, fog, limit)
    assert torch.equal(offsets, expected_offsets) and asked >= int(offsets[-1])
    for actual, wanted in zip(samples, expected, strict=True):
        assert_close(actual, wanted)
    if rounds == [1]:  # then nothing is asked for in vain
        assert asked == int(offsets[-1])


def test_float32_finds_the_same_but_for_rounding(device):
    """Even steps exactly, as on a CPU; steps that grow round otherwise, and a few samples change their cell."""
    for contracted, most in ((False, 0), (True, 3)):
        here, there = (some_march(200, 30, contracted, dtype=torch.float32, device=where) for where in ("cpu", device))
        samples, offsets, _ = marched(there, [8, 1000], LIMIT)
        expected, expected_offsets = reference.grid_march(here, fog, LIMIT)
        assert (offsets.cpu().diff() - expected_offsets.diff()).abs().sum() <= most
        if not most:
            assert torch.equal(samples.distances.cpu(), expected.distances)


def test_steps_lie_end_to_end_where_all_is_occupied(device, assert_close):
    """From near and jitter to far, whether they are even or grow."""
    for contracted in (False, True):
        march = some_march(30, 4, contracted, device=device)._replace(occupied=torch.ones(64, dtype=torch.bool))
        march = march._replace(occupied=march.occupied.to(device), far=march.near + 1)
        offsets, following = march_count(march, 10**6)
        samples = march_samples(march, offsets, int(offsets[-1]))
        assert torch.equal(following.long(), offsets.diff())
        for ray, (begin, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
            at, length = samples.distances[begin:end], samples.deltas[begin:end]
            assert_close(at[1:], at[:-1] + length[:-1])
            assert march.near[ray] <= at[0] <= march.near[ray] + 1.1 * length[0]
            assert at[-1] < march.far[ray] <= at[-1] + 1.1 * length[-1]
            assert (length.diff() >= -1e-12).all()


def test_rays_that_lead_nowhere(device):
    march = some_march(4, device=device)
    march.far[0], march.near[1], march.origins[2] = torch.nan, torch.inf, torch.nan
    march.far[3] = march.near[3]
    offsets, _ = march_count(march, 5)
    samples = march_samples(march, offsets, int(offsets[-1]))
    assert offsets.diff()[[0, 1, 3]].tolist() == [0, 0, 0]
    assert torch.equal(march.occupied[0], offsets.diff()[2] > 0)  # NaN is in the first cell
    assert samples.points[:, 0].isnan().all()


def test_samples_that_a_ray_lacks_have_no_length(device):
    march = some_march(2, device=device)
    offsets = torch.tensor([0, 1000, 2000], device=device)
    samples = march_samples(march, offsets, 2000)
    assert samples.deltas[999] == samples.deltas[1999] == 0
    assert torch.equal(samples.points[[999, 1999]], march.origins)


def test_a_density_that_is_no_number_ends_its_ray(device):
    march = some_march(1, device=device)._replace(occupied=torch.ones(343, dtype=torch.bool, device=device))
    offsets, following = march_count(march, 6)
    depth, reached = torch.zeros_like(march.near), torch.zeros(2, dtype=torch.int64, device=device)
    densities = torch.tensor([0, 0, torch.nan, 0, 0, 0], dtype=torch.float64, device=device)
    march_reached(densities, torch.ones_like(densities), offsets, depth, reached, following, LIMIT)
    assert reached.tolist() == [0, 3]
    assert march_count(march, 6, following)[0].tolist() == [0, 0]


def test_opcheck(device):
    march = some_march(device=device)
    offsets, following = march_count(march, 5)
    total = int(offsets[-1])
    arguments = (*march[:6], following, *march[6:])
    torch.library.opcheck(OP.march_count.default, (*arguments, 5))
    torch.library.opcheck(OP.march_samples.default, (*arguments, offsets, total))
    values = torch.rand(2, total, dtype=torch.float64, device=device).unbind()
    state = torch.zeros_like(march.near), torch.zeros_like(offsets), following
    torch.library.opcheck(OP.march_reached.default, (*values, offsets, *state, 1.0))


def test_compiles(device, assert_close):
    march = some_march(device=device)
    compiled = torch.compile(lambda m: march_count(m, 7), fullgraph=True, backend="aot_eager")
    offsets, following = march_count(march, 7)
    assert torch.equal(compiled(march)[0], offsets) and torch.equal(compiled(march)[1], following)
    total = int(offsets[-1])
    compiled = torch.compile(lambda m, o: march_samples(m, o, total), fullgraph=True, backend="aot_eager")
    assert_close(compiled(march, offsets).points, march_samples(march, offsets, total).points)


def test_rejections():
    march = some_march()
    for wrong, message in (
        (march._replace(near=march.near[:3]), r"march_count: near must be \[R\] float64, got \[3\] float64 on cpu"),
        (march._replace(resolution=5), r"march_count: occupied must be \[125\] bool, got \[343\]"),
        (march._replace(step=0.0), r"march_count: resolution must be 1 to 65536, step and even > 0, got 7, 0.0, inf"),
    ):
        with pytest.raises(ValueError, match=message):
            march_count(wrong, 3)
    with pytest.raises(ValueError, match="march_count: most must be >= 0, got -1"):
        march_count(march, -1)
    with pytest.raises(ValueError, match=r"march_count: first must be \[R\] int32"):
        march_count(march, 3, torch.zeros(9))
    with pytest.raises(ValueError, match=r"march_samples: offsets must be \[R\+1\] int64"):
        march_samples(march, torch.zeros(9, dtype=torch.int64), 0)
    with pytest.raises(RuntimeError, match="march_count: not differentiable, but origins requires grad"):
        march_count(march._replace(origins=march.origins.requires_grad_()), 3)
