"""What is around a step of an optimiser: chunks in parallel, their mean gradient, and what if that is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sdfgan import ops
from sdfgan.errors import UserError

_MAX_SKIPPED_IN_A_ROW = 20
_FIRST_LOSS_SCALE, _STEPS_TO_DOUBLE_IT = 2.0**12, 1000  # of fp16

Numbers = dict[str, float]  # of a step, by their names in the log
Log = dict[str, Tensor]  # the same before they are read: tensors of one number, so that a step waits for them once

T = TypeVar("T")


class ChunkThreads:
    """On a CPU, as many threads as torch had, in each of which torch's operations have one: results do not depend on
    their number."""

    def __init__(self, device: torch.device) -> None:
        self.count = torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None
        if device.type == "cpu":
            torch.set_num_threads(1)
            self._pool = ThreadPoolExecutor(self.count, initializer=torch.set_num_threads, initargs=(1,))

    def map(self, function: Callable[..., T], *arguments: Iterable[Any]) -> list[T]:
        """`function` of each chunk's arguments, in order.

        On a CPU in parallel; native kernels have the threads that are left where chunks are fewer. One chunk is
        computed in the calling thread.
        """
        if self._pool is None:
            return list(map(function, *arguments))
        chunks = list(zip(*arguments, strict=True))
        threads = max(1, self.count // max(1, len(chunks)))  # of each

        def compute(chunk: tuple[Any, ...]) -> T:
            with ops.kernels_on(threads):
                return function(*chunk)

        return list(map(compute, chunks) if len(chunks) == 1 else self._pool.map(compute, chunks))

    def close(self) -> None:
        """Give torch its threads back."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
            torch.set_num_threads(self.count)


class Steps:
    """Steps of a run's optimisers, each left out if its gradient is not finite, and the factor of fp16's losses.

    `rates` gives each network's name the flag of its learning rate, for the error after more than twenty steps in a
    row that were left out. With `precision` "fp16" overflows are how the factor, `loss_scale`, is found, and do not
    count.
    """

    def __init__(self, rates: Mapping[str, str], precision: str | None) -> None:
        self._rates = rates
        self._skipped_in_a_row = dict.fromkeys(rates, 0)
        self._scaled = precision == "fp16"
        self.loss_scale = _FIRST_LOSS_SCALE if self._scaled else 1.0
        self._good = 0  # since the factor changed
        self._taken: list[tuple[str, Tensor]] = []  # networks and their gradients' norms, not settled yet

    def take(
        self, name: str, optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], clip: float
    ) -> Tensor:
        """Step on the parameters' gradients, clipped to the norm `clip`, unless they are not finite; gives their norm.

        The gradients are gone afterwards. Nothing waits for the device, which decides by itself: `optimizer` is fused.
        """
        parameters = list(parameters)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if math.isfinite(clip):
            torch.nn.utils.clip_grads_with_norm_(parameters, clip, norm)
        if not optimizer.defaults.get("fused"):
            raise TypeError(f"Steps: the optimizer of the {name} must be fused, or it would step on what is not finite")
        bad = ~(norm < math.inf)  # also where it is NaN
        optimizer.found_inf = bad.float()  # type: ignore[attr-defined]  # as torch's GradScaler tells it
        optimizer.step()
        for parameter in parameters:
            parameter.grad = None
        self._taken.append((name, norm))
        return norm

    @property
    def norms(self) -> Tensor:
        """[K] of the gradients that steps were taken on since the last `settle`."""
        return torch.stack([norm for _, norm in self._taken])

    def settle(self, norms: Sequence[float], done: int) -> bool:
        """Take in the numbers that `norms` held; gives whether all were finite, and all steps taken.

        Raises UserError, which names the number of steps `done`, after too many that were left out.
        """
        for (name, _), norm in zip(self._taken, norms, strict=True):
            if math.isfinite(norm):
                self._skipped_in_a_row[name] = 0
                self._good += 1
                if self._scaled and self._good >= _STEPS_TO_DOUBLE_IT:
                    self.loss_scale, self._good = self.loss_scale * 2, 0
            elif self.loss_scale > 1:
                self.loss_scale, self._good = self.loss_scale / 2, 0
            else:
                self._skipped_in_a_row[name] += 1
                if self._skipped_in_a_row[name] > _MAX_SKIPPED_IN_A_ROW:
                    raise UserError(
                        f"training stopped at step {done}: gradients of the {name} were not finite "
                        f"{self._skipped_in_a_row[name]} times in a row; earlier checkpoints are valid; "
                        f"lower {self._rates[name]}"
                    )
        self._taken = []
        return all(map(math.isfinite, norms))

    def state(self) -> dict[str, Any]:
        """Plain values from which `load_state` continues."""
        return {"skipped_in_a_row": self._skipped_in_a_row, "loss_scale": self.loss_scale, "good_steps": self._good}

    def load_state(self, state: dict[str, Any]) -> None:
        """Undo `state`. Raises KeyError, TypeError or ValueError for what is not one."""
        skipped = state["skipped_in_a_row"]
        if isinstance(skipped, int):  # of the only network, as runs on scenes once wrote it
            skipped = dict.fromkeys(self._rates, skipped)
        if not isinstance(skipped, dict):
            raise ValueError(f"skipped_in_a_row must be counts by name, got {skipped!r:.50}")
        self._skipped_in_a_row = {name: _count(skipped[name]) for name in self._rates}
        self.loss_scale, self._good = float(state["loss_scale"]), _count(state["good_steps"])
        if not 0 < self.loss_scale < math.inf or (self.loss_scale != 1 and not self._scaled):
            raise ValueError(f"loss_scale {self.loss_scale}")


def _count(value: Any) -> int:
    """Raises ValueError for what is no count."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r:.50} is not a number of steps")
    return value


@torch.no_grad()
def step_rows(optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor], good: Sequence[bool]) -> None:
    """Step on the gradients of parameters [M, ...] that are stacked, one for each of M networks.

    Of the rows that are not `good` nothing changes, neither themselves nor what the optimiser, one like Adam, remembers
    of them. A single network's parameters need no first dimension. The gradients are gone afterwards.
    """
    parameters = list(parameters)
    bad = [index for index, is_good in enumerate(good) if not is_good]
    held = []
    for parameter in parameters if 0 < len(bad) < len(good) else ():
        if parameter.grad is not None:
            parameter.grad[bad] = 0
        slots = [slot for slot in optimizer.state.get(parameter, {}).values() if slot.shape == parameter.shape]
        held += [(tensor, tensor[bad]) for tensor in (parameter, *slots)]
    if len(bad) < len(good):
        optimizer.step()
    for parameter in parameters:
        parameter.grad = None
    for tensor, before in held:
        tensor[bad] = before


def as_numbers(*tensors: Tensor) -> list[list[float]]:
    """The numbers of each tensor; waits for the device once, for all of them."""
    numbers = iter(torch.cat([tensor.detach().flatten() for tensor in tensors]).tolist())
    return [list(islice(numbers, tensor.numel())) for tensor in tensors]


def mean_gradients(chunks: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """The mean over chunks of each parameter's gradient, summed in their order."""
    first, *others = chunks
    means = torch._foreach_div(list(first), len(chunks))  # ours: autograd may give views, and one tensor twice
    for other in others:
        torch._foreach_add_(means, list(other), alpha=1 / len(chunks))
    return list(means)


def assign_gradients(parameters: Iterable[nn.Parameter], gradients: Iterable[Tensor], loss_scale: float = 1.0) -> None:
    """Give parameters the gradients of a loss that was multiplied by `loss_scale`.

    Each is laid out as its parameter: fused optimisers on a CPU take both for flat arrays, and `torch.autograd.grad`
    gives transposed ones for the weights of linear layers.
    """
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient.stride() != parameter.stride():
            gradient = torch.empty_like(parameter).copy_(gradient)
        parameter.grad = gradient if loss_scale == 1 else gradient / loss_scale
