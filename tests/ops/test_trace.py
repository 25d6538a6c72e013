"""sdfgan.ops.trace_step: against the reference, a sphere against the quadratic formula, stable compaction."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdfgan.ops import RayStatus, generate_rays, reference, trace_step

OP = torch.ops.sdfgan.trace_step.default
MUTATED = ("t", "best_value", "best_t", "status")


def random_state(entries, rays, dtype=torch.float32, device="cpu", seed=0):
    """Arguments of a step in the middle of a march: all kinds of answers, a count below K."""
    g = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(shape, dtype=torch.float64, generator=g).to(dtype)

    values = rand(entries) - 0.2
    values[rand(entries) < 0.1] = torch.nan
    values[rand(entries) < 0.1] = torch.inf
    directions = rand(rays, 3) - 0.5
    state = {
        "values": values,
        "alive": torch.randperm(rays, generator=g)[:entries].sort().values.int(),
        "count": torch.tensor([entries * 4 // 5], dtype=torch.int32),
        "origins": rand(rays, 3),
        "directions": directions / directions.norm(dim=-1, keepdim=True),
        "t": rand(rays),
        "far": 0.5 + rand(rays),
        "best_value": rand(rays),
        "best_t": rand(rays),
        "status": torch.zeros(rays, dtype=torch.uint8),
    }
    return {name: tensor.to(device) for name, tensor in state.items()}


def clone(state):
    return {name: tensor.clone() for name, tensor in state.items()}


@settings(max_examples=30, deadline=None)
@given(
    rays=st.integers(0, 60),
    share=st.floats(0, 1),
    threshold=st.floats(-0.1, 0.3),
    cone_slope=st.sampled_from([0.0, 0.1, -0.1]),
    step_scale=st.sampled_from([1.0, 0.5]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_matches_reference(device, assert_close, rays, share, threshold, cone_slope, step_scale, dtype, seed):
    state = random_state(int(rays * share), rays, dtype, device, seed)
    expected_state = clone(state)
    options = {"threshold": threshold, "cone_slope": cone_slope, "step_scale": step_scale}
    actual = trace_step(**state, **options)
    expected = reference.trace_step(**expected_state, **options)
    for a, e in zip((*actual, *state.values()), (*expected, *expected_state.values()), strict=True):
        assert_close(a, e)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_order_is_stable_for_any_number_of_threads(device, threads):
    state = random_state(30_000, 40_000, device=device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        points, alive, count = trace_step(**state, threshold=0.0)
    finally:
        torch.set_num_threads(before)
    looked_at = state["alive"][:24_000]
    survivors = looked_at[state["status"][looked_at.long()] == RayStatus.MARCHING]
    n = int(count)
    assert 0 < n == len(survivors)
    assert torch.equal(alive[:n], survivors)
    assert not alive[n:].any() and not points[n:].any()
    ended = [int((state["status"] == status).sum()) for status in (1, 2, 3)]
    assert n + sum(ended) == 24_000 and all(ended)


def test_traced_sphere_matches_the_quadratic_formula(device):
    size, centre, radius = 32, torch.tensor([0.2, -0.1, 0.1], device=device, dtype=torch.float64), 0.6
    camera = torch.eye(4, dtype=torch.float64, device=device)[None, :3].clone()
    camera[0, 2, 3] = 4.0
    pixels = torch.arange(size * size, device=device)
    origins, directions, near, far = generate_rays(camera, pixels, size, size, 0.6)
    t, best_value, best_t = near.clone(), torch.full_like(near, torch.inf), near.clone()
    status = torch.full_like(pixels, RayStatus.LEFT, dtype=torch.uint8)
    alive = (near < far).nonzero()[:, 0].int()
    status[alive.long()] = RayStatus.MARCHING
    count = torch.tensor([len(alive)], dtype=torch.int32, device=device)
    points = (origins + t[:, None] * directions)[alive.long()]
    for _ in range(200):
        values = (points - centre).norm(dim=-1) - radius
        points, alive, count = trace_step(
            values, alive, count, origins, directions, t, far, best_value, best_t, status, threshold=1e-7
        )
    assert count.item() == 0

    offset = origins - centre
    b = (offset * directions).sum(-1)
    discriminant = b**2 - offset.square().sum(-1) + radius**2
    hit = status == RayStatus.HIT
    assert torch.equal(hit, discriminant > 0) and 0.1 < hit.double().mean() < 0.9
    torch.testing.assert_close(t[hit], (-b - discriminant.sqrt())[hit], rtol=0, atol=1e-5)
    # Where a ray misses, the smallest value is near its closest approach to the sphere.
    miss = (status == RayStatus.LEFT) & (near < far) & (-b > near) & (-b < far)
    closest = (offset - b[:, None] * directions).norm(dim=-1) - radius
    assert (best_value[miss] >= closest[miss] - 1e-12).all()
    assert ((best_t + b)[miss].abs() < 0.6).all()


def test_count_and_entries_out_of_range_are_harmless(device):
    state = random_state(10, 10, device=device)
    state["values"].fill_(0.01)
    state["far"].fill_(9.0)
    state["alive"][3], state["alive"][5] = -1, 10
    state["count"].fill_(1000)
    _, alive, count = trace_step(**state, threshold=0.0)
    assert count.item() == 8 and alive.tolist() == [0, 1, 2, 4, 6, 7, 8, 9, 0, 0]
    state["count"].fill_(-1)
    assert trace_step(**state, threshold=0.0)[2].item() == 0


def test_opcheck(device):
    state = random_state(9, 12, device=device)
    torch.library.opcheck(OP, (*state.values(), 0.1, 0.0, 1.0))


def test_compiles_and_mutates(device, assert_close):
    def step(state):
        points, alive, count = trace_step(**state, threshold=0.1)
        return points * 2, alive, count, state["t"] + 1

    state = random_state(20, 30, device=device)
    expected_state = clone(state)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    results = zip(compiled(state), step(expected_state), strict=True)
    for actual, expected in (*results, *((state[name], expected_state[name]) for name in MUTATED)):
        assert_close(actual, expected)


@pytest.mark.parametrize(
    ("name", "replacement", "text"),
    [
        (
            "values",
            torch.zeros(9, dtype=torch.float16),
            r"values must be \[K\] float32 or float64, got \[9\] float16",
        ),
        (
            "alive",
            torch.zeros(9, dtype=torch.int64),
            r"alive must be \[K\] int32, got \[9\] int64 on cpu \(K=9\)",
        ),
        ("count", torch.zeros(2, dtype=torch.int32), r"count must be \[1\] int32, got \[2\] int32"),
        ("directions", torch.zeros(5, 3), r"directions must be \[N, 3\] float32, got \[5, 3\] .* \(N=12\)"),
        ("t", torch.zeros(24)[::2], r"t must be \[N\] float32 contiguous, got .* with strides \[2\]"),
        ("far", torch.zeros(12, dtype=torch.float64), r"far must be \[N\] float32, got \[12\] float64"),
        ("status", torch.zeros(12, dtype=torch.bool), r"status must be \[N\] uint8, got \[12\] bool"),
        (
            "origins",
            torch.zeros(12, 3, device="meta"),
            r"origins must be .* on cpu, got \[12, 3\] float32 on meta",
        ),
    ],
)
def test_rejections(name, replacement, text):
    state = random_state(9, 12)
    state[name] = replacement
    with pytest.raises(ValueError, match="trace_step: " + text):
        trace_step(**state, threshold=0.1)


def test_gradient_is_refused():
    state = random_state(9, 12)
    state["values"].requires_grad_()
    with pytest.raises(RuntimeError, match="trace_step: not differentiable, but values requires grad"):
        trace_step(**state, threshold=0.1)
