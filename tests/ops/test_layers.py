"""sdfgan.ops.layer_step: against the reference, and minima and entries of solids against their formulas."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdfgan.fields import Sphere, Torus
from sdfgan.ops import LAYER_STEPS, LayerSearch, layer_step, reference, start_layers

OP = torch.ops.sdfgan.layer_step.default


def random_search(entries, layers, dtype=torch.float32, device="cpu", seed=0):
    """Arguments of a step in the middle of a search, of every stage: ends that are known or not, a count below K."""
    g = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(shape, dtype=torch.float64, generator=g)

    search = start_layers(2 + rand(layers), rand(layers), 2 + rand(layers), 0.1 + rand(layers))
    search.state[rand(layers) < 0.5, 9] = torch.nan
    for begin, sign in ((12, -1), (18, 1)):
        known = rand(layers) < 0.7
        search.state[known, begin + 1] = rand(layers)[known] - 0.3
        search.state[known, begin + 2] = sign * rand(layers)[known]
        search.state[known, begin + 3 : begin + 6] = rand(layers, 3)[known] - 0.5
    search.state[:, 10] = torch.where(rand(layers) < 0.5, 1 + rand(layers), -torch.inf)
    search.state[:, 11] = 2.5 + rand(layers)
    stages = torch.tensor([0, 1, 2, 3, 4, 16, 17, 18, 255], dtype=torch.uint8)
    values, gradients = rand(entries) - 0.4, 2 * rand(entries, 3) - 1
    values[rand(entries) < 0.05], gradients[rand(entries) < 0.05] = torch.nan, torch.nan
    directions = rand(layers, 3) - 0.5
    arguments = {
        "values": values.to(dtype),
        "gradients": gradients.to(dtype),
        "alive": torch.randperm(layers, generator=g)[:entries].sort().values.int(),
        "count": torch.tensor([entries * 4 // 5], dtype=torch.int32),
        "origins": rand(layers, 3).to(dtype),
        "directions": (directions / directions.norm(dim=-1, keepdim=True)).to(dtype),
        "state": search.state.to(dtype),
        "stage": stages[torch.randint(len(stages), (layers,), generator=g)],
    }
    return {name: tensor.to(device) for name, tensor in arguments.items()}


def clone(arguments):
    return {name: tensor.clone() for name, tensor in arguments.items()}


def step(function, arguments):
    *given_, state, stage = arguments.values()
    return function(*given_, LayerSearch(state, stage))


@settings(max_examples=100, deadline=None)
@given(layers=st.integers(0, 60), share=st.floats(0, 1), seed=st.integers(0, 1000))
def test_matches_reference(device, assert_close, layers, share, seed):
    """In float64, where no rounding turns a decision."""
    actual = random_search(int(layers * share), layers, torch.float64, device, seed)
    expected = clone(actual)
    results = zip(step(layer_step, actual), step(reference.layer_step, expected), strict=True)
    for a, e in (*results, *((actual[name], expected[name]) for name in ("state", "stage"))):
        assert_close(a, e)


def search_in(field, origins, directions, guess, reach, enter, pixel_size):
    """All steps of a search in a field; returns also the evaluations."""
    search = start_layers(guess, reach, enter, pixel_size)
    alive = torch.arange(len(guess), dtype=torch.int32, device=guess.device)
    count = torch.full((1,), len(guess), dtype=torch.int32, device=guess.device)
    points, evaluations = origins + guess[:, None] * directions, 0
    for _ in range(LAYER_STEPS):
        evaluations += int(count)
        with torch.no_grad():
            answer = field.sdf_and_gradient(points)
        points, alive, count = layer_step(*answer, alive, count, origins, directions, search)
    assert int(count) == 0 and (search.stage == 255).all()
    return search, evaluations


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sphere(device, dtype):
    """Rays past a sphere and through its rim, with a bracket that is off."""
    g = torch.Generator().manual_seed(0)
    count, radius, pixel = 300, 0.5, 0.01
    height = radius + pixel * (4 * torch.rand(count, generator=g) - 3)  # from 3 pixels inside to 1 outside
    origins = torch.stack([height, torch.zeros(count), torch.full((count,), 3.0)], -1).to(device, dtype)
    directions = torch.tensor([0.0, 0.0, -1.0]).expand(count, 3).to(device, dtype).contiguous()
    reach = (0.1 + 0.3 * torch.rand(count, generator=g)).to(device, dtype)
    guess = 3 + reach * (1.6 * torch.rand(count, generator=g) - 0.8).to(device, dtype)
    nothing, size = torch.full_like(guess, torch.nan), torch.full_like(guess, pixel)
    search, evaluations = search_in(Sphere(radius).to(device, dtype), origins, directions, guess, reach, nothing, size)
    expected = height.to(device, dtype) - radius
    near = expected < pixel
    assert (search.nearest - expected)[near].abs().max() < 0.02 * pixel
    towards = torch.nn.functional.normalize(search.normal, dim=-1)[near]
    assert (towards[:, 0] > 0.99).all()
    hit = expected < -0.02 * pixel
    assert (search.nearest[hit] < 0).all() and (search.nearest[expected > 0.02 * pixel] > 0).all()
    entry = 3 - (radius**2 - height[hit.cpu()].double().square()).sqrt()
    assert (search.t[hit].double().cpu() - entry).abs().median() < 0.2 * pixel
    assert evaluations < 6 * count
    # The edges lie about the minimum, and its derivative is shared between them.
    assert (search.edge[near, 0] <= search.edge[near, 1]).all()
    assert ((search.share >= 0) & (search.share <= 1)).all()


class Wedge:
    """max(x, z) - 0.3, with the gradient of one face at the edge, too."""

    @staticmethod
    def sdf_and_gradient(points):
        x, _, z = points.unbind(-1)
        axis = torch.where(x > z, 0, 2)
        return torch.maximum(x, z) - 0.3, torch.nn.functional.one_hot(axis, 3).to(points)


def test_a_sharp_edge(device):
    """Inside a wedge's edge the minimum is at a kink, which moves as both faces do, by the slopes along the ray."""
    count, pixel = 100, 0.01
    depth = torch.linspace(0.05, 1.5, count, dtype=torch.float64, device=device) * pixel
    directions = torch.tensor([-0.6, 0.0, 0.8], dtype=torch.float64, device=device).expand(count, 3).contiguous()
    kink = torch.stack([0.3 - depth, torch.zeros_like(depth), 0.3 - depth], -1)
    guess = 2 + 0.05 * torch.linspace(-1, 1, count, dtype=torch.float64, device=device)
    reach, size = torch.full_like(depth, 0.13), torch.full_like(depth, pixel)
    nothing = torch.full_like(guess, torch.nan)
    search, _ = search_in(Wedge(), kink - 2 * directions, directions, guess, reach, nothing, size)
    assert (search.nearest + depth).abs().max() < 0.02 * pixel
    assert ((search.share - 0.8 / 1.4).abs() < 0.02).all()
    expected = torch.tensor([0.8 / 1.4, 0.0, 0.6 / 1.4], dtype=torch.float64, device=device)
    assert (search.normal - expected).abs().max() < 0.02
    assert (search.t - (2 - depth / 0.6)).abs().max() < 0.1 * pixel  # into the face x = 0.3


def test_an_entry_begins_where_the_march_saw_it(device):
    """Through a thin ring: the near side, though the far one is as near to the minimum."""
    torus = Torus(0.5, 0.02).to(device, torch.float64)
    count, pixel = 50, 0.02
    across = torch.linspace(-0.015, 0.015, count, dtype=torch.float64, device=device)
    origins = torch.stack([0.5 + across, torch.full_like(across, 2.0), torch.zeros_like(across)], -1)
    directions = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64, device=device).expand(count, 3).contiguous()
    guess, reach = torch.full_like(across, 2.001), torch.full_like(across, 0.03)
    entry = 2 - (0.02**2 - across.square()).sqrt()
    for enter in (entry + 0.004, torch.full_like(entry, torch.nan)):
        search, _ = search_in(torus, origins, directions, guess, reach, enter, torch.full_like(across, pixel))
        assert (search.nearest < 0).all()
        assert (search.t - entry).abs().max() < 0.1 * pixel


def test_what_is_not_stepped_is_a_known_surface(device):
    guess = torch.rand(5, device=device) + 1
    search = start_layers(guess, guess, guess, guess)
    assert torch.equal(search.t, guess) and torch.equal(search.edge, torch.stack([guess, guess], -1))
    assert (search.nearest == -1).all() and not search.share.any() and not search.normal.any()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_order_is_stable_for_any_number_of_threads(device, threads):
    arguments = random_search(30_000, 40_000, device=device)
    alone = clone(arguments)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        points, alive, count = step(layer_step, arguments)
        torch.set_num_threads(1)
        expected = step(layer_step, alone)
    finally:
        torch.set_num_threads(before)
    assert 0 < int(count) < 24_000
    for a, e in zip((points, alive, count, arguments["state"]), (*expected, alone["state"]), strict=True):
        assert torch.equal(a.nan_to_num(), e.nan_to_num())
    assert (alive[: int(count)].diff() > 0).all() and not points[int(count) :].any()


def test_count_and_entries_out_of_range_are_harmless(device):
    arguments = random_search(10, 10, device=device)
    arguments["stage"].fill_(16)
    arguments["gradients"].fill_(1.0)  # no slope to follow: halved, and to be seen again
    arguments["directions"].fill_(0.5)
    arguments["values"].fill_(0.1)
    arguments["alive"][3], arguments["alive"][5] = -1, 10
    arguments["stage"][7] = 255
    arguments["count"].fill_(1000)
    _, alive, count = step(layer_step, arguments)
    assert count.item() == 7 and alive.tolist() == [0, 1, 2, 4, 6, 8, 9, 9, 9, 9]
    arguments["count"].fill_(-1)
    assert step(layer_step, arguments)[2].item() == 0


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_a_field_may_answer_in_half_precision(device, half):
    arguments = random_search(40, 50, device=device)
    short = clone(arguments)
    for name in ("values", "gradients"):
        short[name] = arguments[name].to(half)
        arguments[name] = short[name].float()
    for a, e in zip(step(layer_step, short), step(layer_step, arguments), strict=True):
        assert torch.equal(a, e)
    assert torch.equal(short["state"].nan_to_num(), arguments["state"].nan_to_num())


def test_opcheck(device):
    torch.library.opcheck(OP, tuple(random_search(9, 12, device=device).values()))
    torch.library.opcheck(OP, tuple(random_search(0, 0, device=device).values()))


def test_compiles_and_mutates(device, assert_close):
    def run(arguments):
        points, alive, count = step(layer_step, arguments)
        return points * 2, alive, count, arguments["state"] + 1

    arguments = random_search(20, 30, device=device)
    expected = clone(arguments)
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    results = zip(compiled(arguments), run(expected), strict=True)
    for a, e in (*results, *((arguments[name], expected[name]) for name in ("state", "stage"))):
        assert_close(a, e)


@pytest.mark.parametrize(
    ("name", "replacement", "text"),
    [
        ("values", torch.zeros(9, dtype=torch.int32), r"values must be \[K\] float32 or float64, got \[9\] int32"),
        ("gradients", torch.zeros(9, 2), r"gradients must be \[K, 3\] float32, got \[9, 2\]"),
        ("alive", torch.zeros(9, dtype=torch.int64), r"alive must be \[K\] int32, got \[9\] int64 on cpu \(K=9\)"),
        ("directions", torch.zeros(5, 3), r"directions must be \[N, 3\] float32, got \[5, 3\] .* \(N=12\)"),
        ("state", torch.zeros(12, 23), r"state must be \[N, 24\] float32, got \[12, 23\]"),
        ("stage", torch.zeros(12, dtype=torch.bool), r"stage must be \[N\] uint8, got \[12\] bool"),
    ],
)
def test_rejections(name, replacement, text):
    with pytest.raises(ValueError, match="layer_step: " + text):
        step(layer_step, {**random_search(9, 12), name: replacement})


def test_gradient_is_refused():
    arguments = random_search(9, 12)
    arguments["gradients"].requires_grad_()
    with pytest.raises(RuntimeError, match="layer_step: not differentiable, but gradients requires grad"):
        step(layer_step, arguments)
