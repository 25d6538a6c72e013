"""Weights from foreign files: tensors by name, from safetensors or from what torch reads without running any of it."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from sdfgan.errors import UserError, one_line


def load_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or a torch file (.pth, .pt), on the CPU; nested dictionaries give dotted names.

    A torch file is read with weights_only: one that holds more than tensors and plain values is refused, with a word on
    how to convert it. Raises UserError.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with path.open("rb") as file:
            start = file.read(2)
        if start != b"PK" and start[:1] != b"\x80":
            raise UserError(f"{path}: not a file of weights: expected .safetensors, or what torch.save writes")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of protocols that are not allowed either
            found = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: holds pickled objects, which are never loaded; where it was made, save its state dictionary: "
            "torch.save(model.state_dict(), ...) or safetensors.torch.save_file"
        ) from error
    except Exception as error:  # what is no such file makes its readers raise almost anything
        raise UserError(f"{path}: not a readable file of weights: {one_line(error)[:200]}") from error
    tensors: dict[str, Tensor] = {}
    _flatten(found, "", tensors)
    if not tensors:
        raise UserError(f"{path}: no tensors in it")
    return tensors


def _flatten(value: Any, name: str, into: dict[str, Tensor]) -> None:
    if isinstance(value, Tensor):
        into[name] = value.detach()
    elif isinstance(value, Mapping):
        for key, part in value.items():
            _flatten(part, f"{name}.{key}" if name else str(key), into)
