"""Optimisers of what torch has none for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from sdfgan import ops


class GridAdam(torch.optim.Adam):
    """Adam for a model that is mostly a hash grid, with the betas and eps of Mueller et al. 2022, section 4.

    Numbers whose gradient is 0, as that of most of the `table` is, keep their value and their means (`ops.lazy_adam`;
    in the paper only those of the table). Gradients are gone after a step; that of the table is then among `spares`,
    all zero, if that is given and empty: see `HashGrid.spares`. `found_inf` leaves out a step as with torch's fused
    optimisers, and the state is theirs.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        learning_rate: float,
        table: Tensor | None = None,
        spares: list[Tensor] | None = None,
    ) -> None:
        super().__init__(parameters, learning_rate, betas=(0.9, 0.99), eps=1e-15, fused=True)
        self.table, self.spares = table, spares

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Step on all gradients; nothing waits for the device."""
        if closure is not None:
            raise ValueError("GridAdam: takes no closure")
        skip = getattr(self, "found_inf", None)
        counted = 1 if skip is None else 1 - skip
        for group in self.param_groups:
            settings = {"rate": group["lr"], "betas": group["betas"], "eps": group["eps"], "skip": skip}
            for parameter in group["params"]:
                gradient, parameter.grad = parameter.grad, None
                if gradient is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros((), device=parameter.device)
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
                state["step"] += counted
                ops.lazy_adam(parameter, gradient, state["exp_avg"], state["exp_avg_sq"], state["step"], **settings)
                if parameter is self.table and self.spares == []:
                    self.spares.append(gradient)
