"""What callers of public functions may give: numbers, sequences and arrays become tensors; errors name the argument.

And what reprs say of tensors.
"""

from __future__ import annotations

import math
import numbers
import operator
import re
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

REAL = (torch.float32, torch.float64)
_FEW = 16  # numbers that a repr shows


def as_tensor(name: str, value: Any, like: Tensor | None = None) -> Tensor:
    """`value` as a floating-point tensor: as it is if it is one, else of the type and on the device of `like`.

    Without `like`, numbers, sequences and arrays have torch's default type. Raises TypeError for what is not numbers.
    """
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{name} must be numbers or a Tensor, got {_short(value)}")
    if not isinstance(value, Tensor):
        try:
            if isinstance(value, (list, tuple)) and any(isinstance(part, Tensor) for part in value):
                value = torch.stack([as_tensor(name, part, like) for part in value])
            else:
                value = torch.as_tensor(_numbers(value))
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{name} must be numbers or a Tensor, got {_short(value)}") from error
        return value.to(torch.get_default_dtype()) if like is None else value.to(like)
    if value.dtype == torch.bool or value.is_complex():
        raise TypeError(f"{name} must be real numbers, got {str(value.dtype).removeprefix('torch.')}")
    return value if value.is_floating_point() else value.to(torch.get_default_dtype() if like is None else like.dtype)


def check_axes(function: str, axes: Any) -> None:
    """Raises TypeError or ValueError unless `axes` are those of orbit cameras, [B, 3, 3]."""
    if not isinstance(axes, Tensor):
        raise TypeError(f"{function}: axes must be a Tensor [B, 3, 3] (see cameras.rotate_axes), got {_short(axes)}")
    refuse_vmap(function, axes)
    if axes.dim() != 3 or axes.shape[1:] != (3, 3):
        raise ValueError(f"{function}: axes must be [B, 3, 3], got {list(axes.shape)} (see cameras.rotate_axes)")
    if axes.dtype not in REAL:
        got = str(axes.dtype).removeprefix("torch.")
        raise ValueError(f"{function}: axes must be float32 or float64, got {got}")


def refuse_vmap(function: str, *tensors: Any) -> None:
    """RuntimeError under `torch.func.vmap`, which cannot follow rays of which some go on."""
    if any(isinstance(tensor, Tensor) and torch._C._functorch.is_batchedtensor(tensor) for tensor in tensors):
        raise RuntimeError(f"{function}: not under torch.func.vmap; give all cameras and latents in one batch")


def check_whole(function: str, least: int, **values: Any) -> None:
    """Raises TypeError or ValueError, naming the argument, for what is not a whole number of at least `least`."""
    for name, value in values.items():
        try:
            number = operator.index(value)
        except TypeError:
            raise TypeError(f"{function}: {name} must be a whole number, got {_short(value)}") from None
        if number < least:
            raise ValueError(f"{function}: {name} must be at least {least}, got {number}")


def check_number(name: str, value: Any) -> None:
    """Raises TypeError for what is no number."""
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {_short(value)}")


def check_fov(function: str, fov: Any) -> None:
    """Raises TypeError or ValueError unless `fov` is an angle that a camera can see."""
    check_number(f"{function}: fov", fov)
    if not 0.0 < fov < math.pi:
        raise ValueError(f"{function}: fov must be in (0, pi) radians, got {fov}")


def check_direction(name: str, value: Any) -> None:
    """Raises TypeError or ValueError for numbers that are no direction; of a tensor the values are not looked at."""
    if isinstance(value, Tensor):
        return
    try:
        given = _numbers(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be numbers or a Tensor, got {_short(value)}") from None
    if given.shape[-1:] != (3,):
        raise ValueError(f"{name} must be [3] or [B, 3], got {list(given.shape)}")
    length = np.linalg.norm(given, axis=-1)
    if not np.isfinite(length).all():
        raise ValueError(f"{name} must be finite, got {value}")
    if not length.all():
        raise ValueError(f"{name} must not be zero, got {value}")


def check_colour(name: str, value: Any, images: int) -> None:
    """Raises TypeError or ValueError unless `value` is grey, one RGB or one for each of some images."""
    try:
        shape = tuple(value.shape) if isinstance(value, Tensor) else _numbers(value).shape
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be numbers or a Tensor, got {_short(value)}") from None
    if shape not in ((), (3,), (1, 3), (images, 3)):
        raise ValueError(f"{name} must be [3] or [{images}, 3], got {list(shape)}")


def _numbers(value: Any) -> np.ndarray:
    """As float64. Raises TypeError or ValueError for what is not numbers: of itself NumPy makes NaN of None."""
    given = np.asarray(value)
    if given.dtype.kind not in "iuf":
        raise TypeError(given.dtype)
    return given.astype(np.float64)


def _short(value: Any) -> str:
    return repr(value) if isinstance(value, (int, float, str)) else type(value).__name__


def described(value: Any) -> str:
    """For a repr: the values of a small tensor, type and shape of a large one, also inside of named tuples and such."""
    if isinstance(value, Tensor):
        if value.numel() <= _FEW:
            return re.sub(r"-?\d+\.[\de-]*", lambda number: f"{float(number[0]):g}", str(value.tolist()))
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    names = [field.name for field in fields(value)] if is_dataclass(value) else getattr(value, "_fields", ())
    if names:
        parts = [f"{name}={described(getattr(value, name))}" for name in names]
        return f"{type(value).__name__}({', '.join(parts)})"
    return repr(value)
