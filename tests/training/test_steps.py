from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from sdfgan.ops._library import kernel_threads
from sdfgan.training.steps import ChunkThreads, Steps, as_numbers, assign_gradients, step_rows


def test_transposed_gradients_reach_a_fused_optimizer_as_they_are() -> None:
    torch.manual_seed(0)
    x = torch.randn(7, 5)
    stepped = []
    for fused in (False, True):
        torch.manual_seed(1)
        layer = nn.Linear(5, 3)
        optimizer = torch.optim.Adam(layer.parameters(), 1e-2, fused=fused)
        for _ in range(3):
            gradients = torch.autograd.grad(8 * layer(x).square().sum(), list(layer.parameters()))
            transposed = [
                gradient.T.contiguous().T if gradient.ndim == 2 else gradient for gradient in gradients
            ]  # as autograd may give them
            assign_gradients(layer.parameters(), transposed, loss_scale=8)
            optimizer.step()
        stepped.append(layer.weight.detach())
    torch.testing.assert_close(*stepped)


def test_rows_that_are_not_good_stay_as_they_are() -> None:
    """Of stacked parameters; the others move as they would without them, from the first step on."""
    torch.manual_seed(0)
    start = torch.randn(3, 4)
    stacked, alone = (nn.Parameter(part.clone()) for part in (start, start[[0, 2]]))
    optimizers = [torch.optim.Adam([parameter], 0.1, fused=True) for parameter in (stacked, alone)]
    for good in ([True, False, True], [True, True, True], [True, False, True], [False, False, False]):
        gradient, before = torch.randn(3, 4), stacked.detach().clone()
        stacked.grad, alone.grad = gradient.clone(), gradient[[0, 2]]
        if not good[1]:
            stacked.grad[1, 2] = torch.nan
        step_rows(optimizers[0], [stacked], good)
        if good[0]:
            optimizers[1].step()
        assert torch.equal(stacked[1], before[1]) != good[1]
        torch.testing.assert_close(stacked[[0, 2]], alone)
    assert all(slot.isfinite().all() for slot in optimizers[0].state[stacked].values())


def test_a_step_that_is_not_finite_leaves_weights_and_moments_as_they_are() -> None:
    """Decided on the device: the next step is what it would be if the bad one had never been."""
    torch.manual_seed(0)
    start, gradients = torch.randn(3, 4), [torch.randn(3, 4) for _ in range(2)]
    found = []
    for bad in ((), (torch.nan, torch.inf)):
        parameter = nn.Parameter(start.clone())
        optimizer, steps = torch.optim.Adam([parameter], 0.1, fused=True), Steps({"field": "--rate"}, None)
        for gradient in (gradients[0], *(torch.full_like(start, value) for value in bad), gradients[1]):
            parameter.grad = gradient.clone()
            steps.take("field", optimizer, [parameter], 1.0)
            assert parameter.grad is None
        (norms,) = as_numbers(steps.norms)
        assert steps.settle(norms, 0) == (not bad)
        found.append([parameter.detach(), *optimizer.state[parameter].values()])
    for without, with_bad in zip(*found, strict=True):
        assert torch.equal(without, with_bad)


def test_an_optimizer_that_cannot_decide_is_refused() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.ones(2)
    with pytest.raises(TypeError, match="must be fused"):
        Steps({"field": "--rate"}, None).take("field", torch.optim.Adam([parameter], 0.1), [parameter], 1.0)


@pytest.mark.parametrize(("chunks", "of_each"), [(1, 4), (2, 2), (3, 1), (4, 1), (9, 1)])
def test_kernels_of_few_chunks_have_the_threads_that_are_left(chunks: int, of_each: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    threads = ChunkThreads(torch.device("cpu"))
    try:

        def compute(index: int, letter: str) -> tuple[int, str, int, int, int]:
            return index, letter, kernel_threads(), torch.get_num_threads(), threading.get_ident()

        found = threads.map(compute, range(chunks), "abcdefghi"[:chunks])
        assert [chunk[:4] for chunk in found] == [(i, "abcdefghi"[i], of_each, 1) for i in range(chunks)]
        assert (found[0][4] == threading.get_ident()) == (chunks == 1)
        assert threads.map(compute) == []
        assert kernel_threads() == 1  # outside, those of torch
    finally:
        threads.close()
        torch.set_num_threads(before)
