"""sdfgan.ops.lazy_adam: against the reference, torch's optimisers, and what must stay as it is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sdfgan.ops import lazy_adam, reference

RATE, BETAS, EPS = 0.01, (0.9, 0.99), 1e-8


def start(
    shape: tuple[int, ...], dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> list[Tensor]:
    """Parameter and means of a fresh optimiser, and its count of steps."""
    random = torch.Generator().manual_seed(len(shape))
    parameter = torch.randn(shape, generator=random, dtype=torch.float64).to(device, dtype)
    return [parameter, torch.zeros_like(parameter), torch.zeros_like(parameter), torch.zeros((), device=device)]


def gradients(steps: int, shape: tuple[int, ...], share: float) -> Tensor:
    """[steps, ...] of which a share is not zero."""
    random = torch.Generator().manual_seed(steps)
    sizes = 10.0 ** torch.randint(-12, 3, (steps, *shape), generator=random)
    reached = torch.rand(steps, *shape, generator=random) < share
    return torch.randn(steps, *shape, generator=random, dtype=torch.float64) * sizes * reached


def steps_of(
    function, given: Tensor, state: list[Tensor], skip: Tensor | None = None, eps: float = EPS
) -> list[Tensor]:
    parameter, mean, square, step = state
    for gradient in given:
        gradient = gradient.to(parameter, copy=True)
        step += 1
        function(parameter, gradient, mean, square, step, rate=RATE, betas=BETAS, eps=eps, skip=skip)
        assert not gradient.any()
    return [parameter, mean, square]


@settings(max_examples=40, deadline=None)
@given(
    shape=st.sampled_from([(0,), (1,), (15,), (16,), (17,), (3, 5, 7), (1000, 4), (5000, 2)]),
    share=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_matches_reference(device, assert_close, shape, share, dtype):
    given = gradients(5, shape, share)
    expected = steps_of(reference.lazy_adam, given.to(dtype), start(shape, torch.float64))
    actual = steps_of(lazy_adam, given.to(device, dtype), start(shape, dtype, device))
    for mine, theirs in zip(actual, expected, strict=True):
        assert mine.dtype == dtype
        assert_close(mine, theirs.to(device, dtype))


def test_what_no_gradient_reaches_stays_as_it_is(device):
    """To the bit, after steps in which it was reached, and next to what is."""
    given = gradients(4, (1000, 4), 0.3)
    given[:2] += 1  # all are reached at first
    state = start((1000, 4), device=device)
    steps_of(lazy_adam, given[:2], state)
    before = [tensor.clone() for tensor in state[:3]]
    steps_of(lazy_adam, given[2:], state)
    never = (given[2:] == 0).all(0).to(device)
    assert 0.3 < never.float().mean() < 0.7
    for tensor, was in zip(state, before, strict=False):
        assert torch.equal(tensor[never], was[never]) and not (tensor[~never] == was[~never]).any()


def test_dense_gradients_are_those_of_adam(assert_close):
    parameter, mean, square, step = start((300, 4), torch.float64)
    theirs = nn.Parameter(parameter.clone())
    optimizer = torch.optim.Adam([theirs], RATE, BETAS, EPS)
    given = gradients(20, (300, 4), 1.0)
    assert (given != 0).all()
    for gradient in given:
        theirs.grad = gradient.clone()
        optimizer.step()
    steps_of(lazy_adam, given, [parameter, mean, square, step])
    slots = optimizer.state[theirs]
    for mine, wanted in ((parameter, theirs.detach()), (mean, slots["exp_avg"]), (square, slots["exp_avg_sq"])):
        assert_close(mine, wanted)


def test_rows_that_are_reached_are_those_of_torchs_sparse_adam(assert_close):
    parameter, *rest = start((300, 4), torch.float64)
    theirs = nn.Parameter(parameter.clone())
    eps = 1e-30  # to which torch adds another root
    optimizer = torch.optim.SparseAdam([theirs], RATE, BETAS, eps)
    given = gradients(20, (300, 4), 1.0) * (torch.rand(20, 300, 1) < 0.1)
    for gradient in given:
        theirs.grad = gradient.to_sparse(1)
        optimizer.step()
    steps_of(lazy_adam, given, [parameter, *rest], eps=eps)
    assert_close(parameter, theirs.detach())


def test_a_step_that_is_skipped_changes_nothing(device):
    state = start((100, 4), device=device)
    given = gradients(3, (100, 4), 0.3)
    steps_of(lazy_adam, given[:2], state)
    before = [tensor.clone() for tensor in state[:3]]
    given[2, 3], given[2, 4] = torch.nan, torch.inf
    steps_of(lazy_adam, given[2:], state, skip=torch.ones((), device=device))
    assert all(map(torch.equal, state, before))
    steps_of(lazy_adam, given[2:], state, skip=torch.zeros((), device=device))
    assert state[0][3].isnan().all() and state[0][5:].isfinite().all(), "else it goes into what it reaches"


def test_threads_do_not_change_the_result():
    given, threads, results = gradients(3, (40_000, 2), 0.2), torch.get_num_threads(), []
    try:
        for count in (1, 2, 3, 8):
            torch.set_num_threads(count)
            results.append(steps_of(lazy_adam, given, start((40_000, 2))))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def arguments(device: torch.device | str = "cpu") -> dict[str, Tensor | float | None]:
    parameter, mean, square, step = start((9, 2), device=device)
    gradient = torch.ones_like(parameter)
    tensors = {"parameter": parameter, "gradient": gradient, "mean": mean, "square": square, "step": step + 1}
    return {**tensors, "skip": torch.zeros_like(step), "rate": RATE, "beta1": 0.9, "beta2": 0.99, "eps": EPS}


def test_opcheck(device):
    torch.library.opcheck(torch.ops.sdfgan.lazy_adam.default, tuple(arguments(device).values()))


def test_compiles(device):
    def moved(function) -> Tensor:
        given = gradients(1, (50,), 0.5)[0].float().to(device)
        parameter, mean, square, step = start((50,), device=device)
        function(parameter, given, mean, square, step + 1, rate=RATE)
        return parameter

    assert torch.equal(moved(torch.compile(lazy_adam, fullgraph=True, backend="aot_eager")), moved(lazy_adam))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"parameter": torch.zeros(9, 2).half()}, ValueError, "lazy_adam: parameter must be .* got .* float16"),
        ({"gradient": torch.ones(9, 3)}, ValueError, r"gradient must be \[9, 2\] float32, got \[9, 3\]"),
        ({"mean": torch.zeros(2, 9).T}, ValueError, "mean must be .* contiguous"),
        ({"square": torch.zeros(9, 2).double()}, ValueError, "square must be .* float32, got .* float64"),
        ({"step": torch.ones(1)}, ValueError, r"step must be \[\] float32, got \[1\]"),
        ({"skip": torch.tensor(True)}, ValueError, r"skip must be \[\] float32, got \[\] bool"),
        ({"betas": (0.9, 1.0)}, ValueError, r"betas must be at least 0 and below 1, got 0.9 and 1.0"),
        ({"parameter": torch.zeros(9, 2, requires_grad=True)}, RuntimeError, "not differentiable, but parameter"),
        ({"step": 1}, TypeError, "step must be a Tensor, got int"),
    ],
)
def test_rejects(device, change, error, message):
    given = {name: value for name, value in arguments().items() if not name.startswith("beta")} | change
    given = {name: x.to(device) if isinstance(x, Tensor) else x for name, x in given.items()}
    with pytest.raises(error, match=message):
        lazy_adam(**given)
