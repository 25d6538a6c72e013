"""Steps of Adam on what a gradient reaches (Kingma and Ba 2015; Mueller et al. 2022, section 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._library import REAL, Checker, named, native, refuse_gradient, register, require_tensors


def lazy_adam(
    parameter: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    step: Tensor,
    *,
    rate: float,
    betas: Sequence[float] = (0.9, 0.99),
    eps: float = 1e-15,
    skip: Tensor | None = None,
) -> None:
    """Step on the numbers of `parameter` whose gradient is not 0, in place; `gradient` is all 0 afterwards.

    With g the gradient and t the step:

        mean += (1 - beta1) (g - mean);  square += (1 - beta2) (g^2 - square)
        parameter -= rate / (1 - beta1^t) mean / (sqrt(square / (1 - beta2^t)) + eps)

    Where g is 0 all three stay what they are, unlike Adam's: of a hash grid's table a batch reaches a part. A gradient
    that is not finite goes into what it reaches; `skip` is for that.

    Args:
        parameter, gradient, mean, square: contiguous, of one shape, float32 or float64. Both means begin at 0.
        step: [] float32, t, from 1. Means may be older than others': t is that of all.
        skip: [] float32; where it is not 0, nothing changes but the gradient.

    Any number of threads gives the same bits; nothing waits for a GPU. Not differentiable: RuntimeError when an
    argument requires grad, outside of `torch.no_grad()`.
    """
    tensors = {"parameter": parameter, "gradient": gradient, "mean": mean, "square": square}
    refuse_gradient("lazy_adam", **tensors)
    require_tensors("lazy_adam", step=step, **({} if skip is None else {"skip": skip}))
    beta1, beta2 = betas
    _op(parameter, gradient, mean, square, step, skip, rate, beta1, beta2, eps)


def _fake(
    parameter: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    step: Tensor,
    skip: Tensor | None,
    rate: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    check = Checker("lazy_adam")
    check("parameter", parameter, tuple(parameter.shape), REAL)
    for name, tensor in (("gradient", gradient), ("mean", mean), ("square", square)):
        check(name, tensor, tuple(parameter.shape), (parameter.dtype,))
    check("step", step, (), (torch.float32,))
    if skip is not None:
        check("skip", skip, (), (torch.float32,))
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ValueError(f"lazy_adam: betas must be at least 0 and below 1, got {beta1} and {beta2}")


def _kernel(*given: Tensor | float | None) -> None:
    _fake(*given)  # type: ignore[arg-type]
    parameter = given[0]
    assert isinstance(parameter, Tensor)
    native(parameter).lazy_adam(**named(_op, given), count=parameter.numel())


_op = register(
    "lazy_adam(Tensor(a!) parameter, Tensor(b!) gradient, Tensor(c!) mean, Tensor(d!) square, Tensor step,"
    " Tensor? skip, float rate, float beta1, float beta2, float eps) -> ()",
    _kernel,
    _fake,
)
