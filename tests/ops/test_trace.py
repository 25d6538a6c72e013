"""sdfgan.ops.trace_step: against the reference, a sphere against the quadratic formula, stable compaction."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdfgan import build_info
from sdfgan.cameras import DEFAULT_FOV, orbit_camera, rotate_axes
from sdfgan.fields import Sphere
from sdfgan.ops import (
    LayerState,
    MarchRules,
    RayStatus,
    TraceLevel,
    generate_rays,
    reference,
    start_level,
    start_march,
    trace_step,
)
from sdfgan.raycast.levels import march_levels
from sdfgan.raycast.sphere_trace import march

OP = torch.ops.sdfgan.trace_step.default
MUTATED = ("state", "status")
PLAIN = MarchRules(threshold=0.1)


def random_state(entries, rays, dtype=torch.float32, device="cpu", seed=0, refine=False):
    """Arguments of a step in the middle of a march: all kinds of answers, a count below K."""
    g = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(shape, dtype=torch.float64, generator=g).to(dtype)

    values = rand(entries) - 0.2
    values[rand(entries) < 0.1] = torch.nan
    values[rand(entries) < 0.1] = torch.inf
    directions = rand(rays, 3) - 0.5
    state = torch.stack([rand(rays), rand(rays), rand(rays), rand(rays), 0.8 * rand(rays) - 0.2])
    state[4, rand(rays) < 0.3] = 0
    status = torch.zeros(rays, dtype=torch.uint8)
    refining = rand(rays) < 0.3
    status[refining] = torch.randint(8, 13, (rays,), dtype=torch.uint8, generator=g)[refining]
    state[4, ~refining] = state[4, ~refining].clamp(min=0)
    state[3, rand(rays) < 0.1] *= -1  # as a guess of the slope may be
    arguments = {
        "values": values,
        "alive": torch.randperm(rays, generator=g)[:entries].sort().values.int(),
        "count": torch.tensor([entries * 4 // 5], dtype=torch.int32),
        "origins": rand(rays, 3),
        "directions": directions / directions.norm(dim=-1, keepdim=True),
        "far": 0.5 + rand(rays),
        "state": state,
        "status": status if refine else torch.zeros_like(status),
    }
    return {name: tensor.to(device) for name, tensor in arguments.items()}


def clone(state):
    return {name: tensor.clone() for name, tensor in state.items()}


@settings(max_examples=100, deadline=None)
@given(
    rays=st.integers(0, 60),
    share=st.floats(0, 1),
    threshold=st.floats(-0.1, 0.3),
    cone_slope=st.sampled_from([0.0, 0.1, -0.1]),
    lipschitz=st.sampled_from([1.0, 2.0]),
    relaxation=st.sampled_from([0.0, 0.9]),
    slack=st.sampled_from([0.0, 0.05]),
    refine=st.sampled_from([-1, 0, 3]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_matches_reference(
    device, assert_close, rays, share, threshold, cone_slope, lipschitz, relaxation, slack, refine, dtype, seed
):
    state = random_state(int(rays * share), rays, dtype, device, seed, refine >= 0)
    expected_state = clone(state)
    rules = MarchRules(threshold, cone_slope, lipschitz, relaxation, slack, refine)
    actual = trace_step(**state, rules=rules)
    expected = reference.trace_step(**expected_state, rules=rules)
    for a, e in zip((*actual, *state.values()), (*expected, *expected_state.values()), strict=True):
        assert_close(a, e)


def random_layers(most, rays, dtype, device, seed) -> LayerState:
    """Of rays in the middle of a march: with a sample after the nearest one or not, inside or not."""
    g = torch.Generator().manual_seed(seed)
    open_layer = torch.rand(5, rays, dtype=torch.float64, generator=g)
    open_layer[4, torch.rand(rays, generator=g) < 0.5] = torch.nan
    state = LayerState(
        torch.zeros(most, 4, rays, dtype=dtype),
        torch.randint(0, most + 1, (rays,), dtype=torch.uint8, generator=g),
        open_layer.to(dtype),
    )
    return LayerState(*(tensor.to(device) for tensor in state))


@settings(max_examples=150, deadline=None)
@given(
    rays=st.integers(1, 60),
    most=st.integers(1, 4),
    threshold=st.sampled_from([0.0, 0.05]),
    cone_slope=st.sampled_from([0.0, -0.2]),
    refine=st.sampled_from([0, 3]),
    last=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 1000),
)
def test_layers_match_reference(device, assert_close, rays, most, threshold, cone_slope, refine, last, dtype, seed):
    state = random_state(rays, rays, dtype, device, seed)
    state["state"][1, ::3] = 1e10  # in no layer
    layers = random_layers(most, rays, dtype, device, seed)
    layers.open[3, ::2] = state["state"][2, ::2]  # no sample after the nearest yet
    layers.open[1] = torch.minimum(layers.open[1], state["state"][2])
    expected_state, expected_layers = clone(state), LayerState(*(tensor.clone() for tensor in layers))
    rules = MarchRules(threshold, cone_slope, 1.0, 0.9, 0.05, refine, footprint=0.5)
    actual = trace_step(**state, rules=rules, layers=layers, last=last)
    expected = reference.trace_step(**expected_state, rules=rules, layers=expected_layers, last=last)
    for a, e in zip(
        (*actual, *state.values(), *layers), (*expected, *expected_state.values(), *expected_layers), strict=True
    ):
        assert_close(a, e)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_order_is_stable_for_any_number_of_threads(device, threads):
    state = random_state(30_000, 40_000, device=device)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        points, alive, count = trace_step(**state, rules=MarchRules(0.0))
    finally:
        torch.set_num_threads(before)
    looked_at = state["alive"][:24_000]
    survivors = looked_at[state["status"][looked_at.long()] == RayStatus.MARCHING]
    n = int(count)
    assert 0 < n == len(survivors)
    assert torch.equal(alive[:n], survivors)
    assert (alive[n:] == survivors[-1]).all() and not points[n:].any()
    ended = [int((state["status"] == status).sum()) for status in (1, 2, 3)]
    assert n + sum(ended) == 24_000 and all(ended)


@pytest.mark.parametrize(
    ("rules", "most_per_ray"),
    [
        (MarchRules(1e-7), 25),
        (MarchRules(1e-7, relaxation=0.9), 16),
        (MarchRules(1e-7, relaxation=1.0, slack=0.01, refine=4), 7),
    ],
    ids=["plain", "relaxed", "secants"],
)
def test_traced_sphere_matches_the_quadratic_formula(device, rules, most_per_ray):
    size, centre, radius = 32, torch.tensor([0.2, -0.1, 0.1], device=device, dtype=torch.float64), 0.6
    camera = torch.eye(4, dtype=torch.float64, device=device)[None, :3].clone()
    camera[0, 2, 3] = 4.0
    pixels = torch.arange(size * size, device=device)
    origins, directions, near, far = generate_rays(camera, pixels, size, size, 0.6)
    state, status = start_march(near, far)
    alive = (status == RayStatus.MARCHING).nonzero()[:, 0].int()
    count = torch.tensor([len(alive)], dtype=torch.int32, device=device)
    points = (origins + near[:, None] * directions)[alive.long()]
    evaluations = 0
    while count.item() > 0:
        evaluations += count.item()
        values = (points - centre).norm(dim=-1) - radius
        points, alive, count = trace_step(values, alive, count, origins, directions, far, state, status, rules)
    t, best_value, best_t = state[:3]
    assert evaluations < most_per_ray * int((near < far).sum())

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
    _, alive, count = trace_step(**state, rules=MarchRules(0.0))
    assert count.item() == 8 and alive.tolist() == [0, 1, 2, 4, 6, 7, 8, 9, 9, 9]
    state["count"].fill_(-1)
    assert trace_step(**state, rules=MarchRules(0.0))[2].item() == 0


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_a_field_may_answer_in_half_precision(device, half):
    state = random_state(40, 50, device=device)
    values = state["values"].to(half)
    exact = {**clone(state), "values": values.float()}
    for a, e in zip(
        trace_step(**{**state, "values": values}, rules=PLAIN), trace_step(**exact, rules=PLAIN), strict=True
    ):
        assert torch.equal(a, e)
    assert torch.equal(state["state"], exact["state"])


def test_opcheck(device):
    state = random_state(9, 12, device=device)
    torch.library.opcheck(OP, (*state.values(), None, None, None, False, *PLAIN))
    layers = random_layers(2, state["far"].shape[0], torch.float32, device, 0)
    torch.library.opcheck(OP, (*state.values(), *layers, True, *PLAIN))


def test_compiles_and_mutates(device, assert_close):
    def step(state):
        points, alive, count = trace_step(**state, rules=PLAIN)
        return points * 2, alive, count, state["state"] + 1

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
            torch.zeros(9, dtype=torch.int32),
            r"values must be \[K\] float32 or float64, got \[9\] int32",
        ),
        (
            "alive",
            torch.zeros(9, dtype=torch.int64),
            r"alive must be \[K\] int32, got \[9\] int64 on cpu \(K=9\)",
        ),
        ("count", torch.zeros(2, dtype=torch.int32), r"count must be \[1\] int32, got \[2\] int32"),
        ("directions", torch.zeros(5, 3), r"directions must be \[N, 3\] float32, got \[5, 3\] .* \(N=12\)"),
        ("state", torch.zeros(12, 5).T, r"state must be \[5, N\] float32 contiguous, got .* with strides \[1, 5\]"),
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
        trace_step(**state, rules=PLAIN)


def test_gradient_is_refused():
    state = random_state(9, 12)
    state["values"].requires_grad_()
    with pytest.raises(RuntimeError, match="trace_step: not differentiable, but values requires grad"):
        trace_step(**state, rules=PLAIN)


@pytest.mark.parametrize("relaxation", [0.0, 0.88, 1.0])
def test_what_a_cone_passed_is_empty(relaxation):
    g = torch.Generator().manual_seed(0)
    centres, radii = torch.rand(12, 3, generator=g).double() - 0.5, 0.2 * torch.rand(12, generator=g).double()

    def sdf(points):
        return ((points[..., None, :] - centres).norm(dim=-1) - radii).amin(-1)

    slope, rays = 0.05, 400
    directions = torch.nn.functional.normalize(torch.rand(rays, 3, generator=g).double() - 0.5, dim=-1)
    origins = -2 * directions + 0.3 * torch.rand(rays, 3, generator=g).double()
    rules = MarchRules(0.02, slope, 1 + slope, relaxation)
    far = torch.full((rays,), 4.0, dtype=torch.float64)
    state, status = start_march(torch.zeros_like(far), far)
    alive, count, points = torch.arange(rays, dtype=torch.int32), torch.tensor([rays], dtype=torch.int32), origins
    while count.item() > 0:
        points, alive, count = trace_step(sdf(points), alive, count, origins, directions, far, state, status, rules)
    assert 0.3 < (status == RayStatus.HIT).double().mean() < 1
    passed = torch.linspace(0, 1, 500, dtype=torch.float64) * state[0][:, None]
    clearance = sdf(origins[:, None] + passed[..., None] * directions[:, None]) - slope * passed
    assert clearance.min() > -1e-9


COARSE = TraceLevel(6, 20, MarchRules(0.05, 0.1, 1.1), radius=1.3)
DFR = TraceLevel(6, 15, MarchRules(5e-3), start=0.125, reach=0.07)


def some_parent(level, images, dtype, device, seed=0):
    """A state and status as a march may leave them, of every kind."""
    g = torch.Generator().manual_seed(seed)
    rays = images * level.size**2
    state = torch.rand(5, rays, dtype=torch.float64, generator=g)
    state[0] += 3.5
    state[1] *= 0.2
    state[2] += 3.5
    state[4, torch.rand(rays, generator=g) < 0.5] = 0
    kinds = torch.tensor([0, 1, 2, 3, 255], dtype=torch.uint8)
    status = kinds[torch.randint(5, (rays,), generator=g)]
    return level, state.to(device, dtype), status.to(device)


def some_cameras(images, dtype, device):
    angles = torch.linspace(-0.8, 0.9, images), torch.linspace(0, 5, images)
    return orbit_camera(rotate_axes(angles)).to(device, dtype).contiguous()


@pytest.mark.parametrize("images", [0, 1, 3])
@pytest.mark.parametrize("parent", [None, COARSE, DFR], ids=["first", "cones", "dfr"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_start_level_matches_reference(device, assert_close, images, parent, dtype):
    cameras, level = some_cameras(images, dtype, device), TraceLevel(24, 10, MarchRules(1e-4), start=0.01)
    before = None if parent is None else some_parent(parent, images, dtype, device)
    jitter = 0.1 * torch.rand(images, 24, 24).to(device, dtype)
    for moved in (None, jitter):
        actual = start_level(cameras, level, DEFAULT_FOV, before, moved)
        expected = reference.start_level(cameras, level, DEFAULT_FOV, before, moved)
        for name, a, e in zip(actual._fields, actual, expected, strict=True):
            assert a.dtype == e.dtype, name
            assert_close(a, e)


def test_start_level_is_the_same_for_any_number_of_threads():
    cameras, level = some_cameras(5, torch.float32, "cpu"), TraceLevel(96, 10, MarchRules(1e-4))
    parent = some_parent(COARSE, 5, torch.float32, "cpu")
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 4):
            torch.set_num_threads(threads)
            results.append(start_level(cameras, level, DEFAULT_FOV, parent))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_start_level_opcheck_and_rejections(device):
    cameras, parent = some_cameras(2, torch.float32, device), some_parent(COARSE, 2, torch.float32, device)
    numbers = (24, 6, DEFAULT_FOV, 1.0, 0.0, 0.0)
    for radii in (None, torch.tensor([1.0, 0.7], device=device)):
        arguments = (cameras, parent[1], parent[2], None, *numbers, radii)
        torch.library.opcheck(torch.ops.sdfgan.start_level.default, arguments)
    with pytest.raises(ValueError, match="start_level: the size must be a multiple of the level before, got 25 and 6"):
        start_level(cameras, TraceLevel(25, 10, MarchRules(1e-4)), DEFAULT_FOV, parent)
    with pytest.raises(ValueError, match=r"start_level: state must be \[5, 72\] float32"):
        start_level(cameras, TraceLevel(24, 10, MarchRules(1e-4)), DEFAULT_FOV, (COARSE, parent[1][:4], parent[2]))


@pytest.mark.gpu
@pytest.mark.skipif(not (torch.cuda.is_available() and build_info()["cuda"]), reason="needs a GPU")
def test_the_march_waits_for_nothing():
    """Not one synchronisation between the first launch and the last."""
    device = torch.device("cuda")
    field, levels = Sphere(0.5).to(device), march_levels(128, DEFAULT_FOV, threshold=1e-4, steps=60, native=None)
    cameras = some_cameras(4, torch.float32, device)

    def run():
        parent = None
        for level in levels:
            rays = start_level(cameras, level, DEFAULT_FOV, parent)
            march(field, None, rays, level, lambda ray, pixels=level.size**2: (ray // pixels).long())
            parent = level, rays.state, rays.status
        return parent[2]

    run()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        status = run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (status == RayStatus.HIT).any()
