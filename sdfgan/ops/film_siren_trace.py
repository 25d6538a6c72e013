"""Whole images of FiLM-SIREN surfaces, traced in one call; `film_siren` has the network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ._library import REAL, Checker, native, refuse_gradient, register, workspace
from .film_siren import FilmSirenNetwork, Mirror, check_mirror, check_network, named_tensors, native_network
from .trace import LayerState, MarchRules, RayStatus, TraceLevel, native_layers, native_rules

_LEVEL_NUMBERS = len(TraceLevel._fields) - 1 + len(MarchRules._fields)
_NO_MIRROR = Mirror(1.0, 0.0, 0.0)


def film_siren_trace(
    cameras: Tensor,
    levels: Sequence[TraceLevel],
    network: FilmSirenNetwork,
    fov: float,
    jitter: Tensor | None = None,
    max_layers: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, LayerState]:
    """Trace B square images, all levels in one call. Refuses tensors that require grad.

    Rays that end are replaced by waiting ones. On a CPU pixels are split as soon as their cone has ended, and idle
    threads take rays from busy ones; results do not depend on the number of threads. On CUDA each level is one launch,
    and nothing waits for the device, so the call can be captured in a graph.

    Args:
        cameras: [B, 3, 4] camera to world.
        network: of what is traced, with its `mirror`, if it has one.
        jitter: [B, R, R] added to the start of the rays of the last level.
        max_layers: of each ray that are collected (`LayerState`); 0: the plain march.

    Returns:
        status [B, R, R] uint8, `RayStatus` of the rays of the last level; distance [B, R, R] of the hit
        or the nearest miss; the smallest value [B, R, R] of the traced function (for a level set inside, of the sdf);
        counts [2] int64 of points evaluated for rays, and in all, with idle lanes; the layers [max_layers, 4, B R R]
        and counts [B R R] of a `LayerState`.
    """
    check_mirror(network.mirror)
    refuse_gradient("film_siren_trace", cameras=cameras, **named_tensors(network))
    if not levels or any(fine.size % coarse.size for coarse, fine in pairwise(levels)):
        raise ValueError(f"film_siren_trace: sizes must be multiples, got {[level.size for level in levels]}")
    flat = [float(x) for level in levels for x in (level.size, level.steps, *level.rules, *level[3:])]
    outputs = _film_siren_trace(
        cameras,
        network.tensors,
        list(network.layers),
        list(network.mirror or _NO_MIRROR),
        flat,
        fov,
        jitter,
        max_layers,
    )
    status, distance, nearest, counts, met, complete = outputs
    return status, distance, nearest, counts, LayerState(met, complete, met.new_empty(5, 0))


def _trace_fake(
    cameras: Tensor,
    network: list[Tensor],
    layers: list[int],
    mirror: list[float],
    levels: list[float],
    fov: float,
    jitter: Tensor | None,
    max_layers: int,
) -> tuple[Tensor, ...]:
    check = Checker("film_siren_trace")
    check("cameras", cameras, ("B", 3, 4), (torch.float32,) if cameras.is_cuda else REAL)
    check_network(check, network, layers, cameras)
    size = int(levels[-_LEVEL_NUMBERS])
    shape = (cameras.shape[0], size, size)
    if jitter is not None:
        check("jitter", jitter, ("B", size, size), (cameras.dtype,))
    status = cameras.new_full(shape, int(RayStatus.UNTRACED), dtype=torch.uint8)
    counts = torch.zeros(2, dtype=torch.int64, device=cameras.device)
    complete = torch.zeros(status.numel(), dtype=torch.uint8, device=cameras.device)
    met = cameras.new_zeros(max_layers, 4, status.numel())
    return status, cameras.new_zeros(shape), cameras.new_zeros(shape), counts, met, complete


def _trace_kernel(*given: Any) -> tuple[Tensor, ...]:
    outputs = _trace_fake(*given)
    cameras, network, layers, mirror, levels, fov, jitter, max_layers = given
    status, distance, nearest, counts, layers_met, complete = outputs
    described = [native_level(levels[i : i + _LEVEL_NUMBERS]) for i in range(0, len(levels), _LEVEL_NUMBERS)]
    sizes = [level["size"] for level in described]
    native(cameras).film_siren_trace(
        network=native_network(network, layers),
        cameras=cameras,
        levels=described,
        jitter=jitter,
        status=status,
        distance=distance,
        nearest=nearest,
        counts=counts,
        layers=native_layers(layers_met, complete, None) if max_layers else native_layers(None, None, None),
        workspace=workspace(cameras, "film_siren_trace", cameras.shape[0], sizes),
        plane_distance=1 / math.tan(fov / 2),
        mirror=dict(zip(Mirror._fields, mirror, strict=True)),
    )
    return outputs


def native_level(numbers: list[float]) -> dict:
    """`TraceLevel` of csrc/kernels/film_siren.h, from the numbers of an op's `levels`."""
    size, steps, *others = numbers
    rules = MarchRules._make(others[: len(MarchRules._fields)])
    rest = dict(zip(TraceLevel._fields[3:], others[len(rules) :], strict=True))
    return {"size": int(size), "steps": int(steps), "rules": native_rules(rules), **rest}


_film_siren_trace = register(
    "film_siren_trace(Tensor cameras, Tensor[] network, int[] layers, float[] mirror, float[] levels, float fov,"
    " Tensor? jitter, int max_layers) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _trace_kernel,
    _trace_fake,
)
