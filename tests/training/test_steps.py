from __future__ import annotations

import torch
from torch import nn

from sdfgan.training.steps import assign_gradients


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
