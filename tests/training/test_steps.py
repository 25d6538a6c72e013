from __future__ import annotations

import torch
from torch import nn

from sdfgan.training.steps import assign_gradients, step_rows


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
