"""FiLM-SIREN networks without a graph, fused on the CPU: values at many points, and whole traced pictures.

`sdfgan.fields.FilmSirenSDF` says what the network is; its `network` packs one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _C
from ._library import REAL, Checker, native, refuse_gradient, register
from .trace import LayerState, MarchRules, RayStatus, TraceLevel, layer_arrays

_PANEL = 8  # outputs that lie together in a packed matrix
HALF_WIDTHS = (64, 128, 256)  # of networks with float16 matrices, on CUDA


class FilmSirenNetwork(NamedTuple):
    """A FiLM-SIREN as the kernels take it: one copy of the weights for all images, and FiLM for each.

    Layers are sin(scale (W x) + shift), biases within shift; first those of the trunk, then of the sdf, then of the
    texture. All real tensors share a dtype, float32 or float64; the matrices may be bfloat16 beside float32.
    On CUDA all are float32, and the matrices float16.
    """

    first: Tensor  # [W, 3]
    hidden: Tensor  # packed [layers - 1, W, W]: `pack_matrices`; on CUDA float16 as they are
    transposed: Tensor  # the same of the transposed matrices
    sdf_head: Tensor  # [W]
    texture_head: Tensor  # [3, W]
    constants: Tensor  # [2]: the sdf is head . features + sqrt(|x|^2 + constants[0]) + constants[1]
    scale: Tensor  # [B, layers, W]
    shift: Tensor  # [B, layers, W]
    layers: tuple[int, int, int]  # of trunk, sdf (both at least 1) and texture


def pack_matrices(weights: Tensor, precision: str = "fp32") -> Tensor:
    """Matrices [L, W, W] (outputs, inputs) in panels: [L, W/8, W, 8], or [L, W/8, W/2, 8, 2] bfloat16 for "bf16".

    "fp16", for CUDA, only casts. Raises ValueError for a width that is no multiple of 16, and RuntimeError for "bf16"
    on a CPU without bfloat16 arithmetic, unless the environment variable SDFGAN_EMULATE_BF16=1 asks for its (slow)
    emulation.
    """
    if precision == "fp16":
        return weights.half().contiguous()
    layers, width, _ = weights.shape
    if width % 16:
        raise ValueError(f"pack_matrices: the width must be a multiple of 16, got {width}")
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision must be 'fp32', 'bf16' or 'fp16', got {precision!r}")
    panels = weights.view(layers, width // _PANEL, _PANEL, width)
    if precision == "fp32":
        return panels.transpose(2, 3).contiguous()
    if not _C.has_bf16() and os.environ.get("SDFGAN_EMULATE_BF16") != "1":
        raise RuntimeError(f"precision 'bf16' needs a CPU with AVX512_BF16, this one has {_C.simd()}; use 'fp32'")
    pairs = panels.to(torch.bfloat16).unflatten(3, (width // 2, 2))
    return pairs.transpose(2, 3).contiguous()


def film_siren(points: Tensor, image: Tensor, network: FilmSirenNetwork) -> Tensor:
    """Signed distances [N] at points [N, 3]. Refuses tensors that require grad.

    On CUDA, with float16 matrices (sm_80 or later, widths 64, 128 and 256): products on tensor cores, all else float32.
    Not yet run on a GPU.

    A tile of up to 48 points passes through all layers in cache; the float32 sine is a polynomial (error below 2e-7
    for phases below 100). Results do not depend on the number of threads.

    Args:
        points: [N, 3] float32 or float64.
        image: [N] int64, row of scale and shift; fastest when points of an image lie together. A point of no image
            gives NaN.
    """
    tensors = _refuse_gradients("film_siren", network, points=points, image=image)
    return _film_siren(points, image, tensors, list(network.layers))


def film_siren_sample(points: Tensor, image: Tensor, network: FilmSirenNetwork) -> tuple[Tensor, Tensor, Tensor]:
    """Signed distances [N], their gradients [N, 3] and texture_head . features [N, 3]; see `film_siren`."""
    tensors = _refuse_gradients("film_siren_sample", network, points=points, image=image)
    return _film_siren_sample(points, image, tensors, list(network.layers))


def film_siren_trace(
    cameras: Tensor,
    levels: Sequence[TraceLevel],
    network: FilmSirenNetwork,
    fov: float,
    jitter: Tensor | None = None,
    most_layers: int = 0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, LayerState]:
    """Trace one square picture per image, all levels in one call. CPU only; refuses tensors that require grad.

    Rays that end are replaced by waiting ones, pixels are split as soon as their cone has ended, idle threads take
    rays from busy ones; results do not depend on the number of threads.

    Args:
        cameras: [B, 3, 4] camera to world.
        jitter: [B, R, R] added to the start of the rays of the last level.
        most_layers: of each ray that are collected (`LayerState`); 0: the plain march.

    Returns:
        status [B, R, R] uint8, `RayStatus` of the rays of the last level; distance [B, R, R] of the hit
        or the nearest miss; the smallest value of the traced function [B, R, R]; counts [2] int64 of points evaluated
        for rays, and in all, with idle lanes; the layers [most_layers, 4, B R R] and counts [B R R] of a `LayerState`.
    """
    tensors = _refuse_gradients("film_siren_trace", network, cameras=cameras)
    if not levels or any(fine.size % coarse.size for coarse, fine in pairwise(levels)):
        raise ValueError(f"film_siren_trace: sizes must be multiples, got {[level.size for level in levels]}")
    flat = [float(x) for level in levels for x in (level.size, level.steps, *level.rules, *level[3:])]
    outputs = _film_siren_trace(cameras, tensors, list(network.layers), flat, fov, jitter, most_layers)
    status, distance, nearest, counts, met, complete = outputs
    return status, distance, nearest, counts, LayerState(met, complete, met.new_empty(5, 0))


def _refuse_gradients(op: str, network: FilmSirenNetwork, **tensors: Tensor) -> list[Tensor]:
    named = dict(zip(network._fields[:-1], network[:-1], strict=True))
    refuse_gradient(op, **tensors, **named)
    return list(network[:-1])


def _check_network(check: Checker, network: list[Tensor], layers: list[int], like: Tensor) -> None:
    first, hidden, transposed, sdf_head, texture_head, constants, scale, shift = network
    if len(layers) != 3 or layers[0] < 1 or layers[1] < 1 or layers[2] < 0:
        raise ValueError(f"{check.op}: layers must be (trunk >= 1, sdf >= 1, texture >= 0), got {tuple(layers)}")
    real = (like.dtype,)
    check("first", first, ("W", 3), real)
    width = first.shape[0]
    shape: tuple[int, ...] = (sum(layers) - 1, width // _PANEL, width, _PANEL)
    if hidden.dtype == torch.bfloat16 and like.dtype == torch.float32:
        real, shape = (torch.bfloat16,), (sum(layers) - 1, width // _PANEL, width // 2, _PANEL, 2)
    check("hidden", hidden, shape, real)
    check("transposed", transposed, shape, real)
    real = (like.dtype,)
    check("sdf_head", sdf_head, ("W",), real)
    check("texture_head", texture_head, (3, "W"), real)
    check("constants", constants, (2,), real)
    check("scale", scale, ("B", sum(layers), "W"), real)
    check("shift", shift, ("B", sum(layers), "W"), real)
    if like.is_cuda:
        raise RuntimeError(f"{check.op}: runs on the CPU only, got tensors on {like.device}")


def _check_half_network(points: Tensor, image: Tensor, network: list[Tensor], layers: list[int]) -> None:
    check, real = Checker("film_siren"), (torch.float32,)
    first, hidden, _, sdf_head, _, constants, scale, shift = network
    check("points", points, ("N", 3), real)
    check("image", image, ("N",), (torch.int64,))
    check("first", first, ("W", 3), real)
    width = first.shape[0]
    if width not in HALF_WIDTHS:
        raise ValueError(f"film_siren: on CUDA the width must be one of {HALF_WIDTHS}, got {width}")
    check("hidden", hidden, (sum(layers) - 1, width, width), (torch.float16,))
    check("sdf_head", sdf_head, ("W",), real)
    check("constants", constants, (2,), real)
    check("scale", scale, ("B", sum(layers), "W"), real)
    check("shift", shift, ("B", sum(layers), "W"), real)


def _native_network(network: list[Tensor], layers: list[int]) -> tuple[list[int], int, int, list[int], bool]:
    images, width = network[6].shape[0], network[0].shape[0]
    return [t.data_ptr() for t in network], images, width, layers, network[1].dtype == torch.bfloat16


def _check_points(op: str, points: Tensor, image: Tensor, network: list[Tensor], layers: list[int]) -> None:
    check = Checker(op)
    check("points", points, ("N", 3), REAL)
    check("image", image, ("N",), (torch.int64,))
    _check_network(check, network, layers, points)


def _fake(points: Tensor, image: Tensor, network: list[Tensor], layers: list[int]) -> Tensor:
    if points.is_cuda:
        _check_half_network(points, image, network, layers)
    else:
        _check_points("film_siren", points, image, network, layers)
    return points.new_empty(points.shape[0])


def _kernel(points: Tensor, image: Tensor, network: list[Tensor], layers: list[int]) -> Tensor:
    sdf = _fake(points, image, network, layers)
    if points.is_cuda:
        launch = native("film_siren_values", points)
        described = _native_network(network, layers)
        launch(described, points.data_ptr(), image.data_ptr(), 0, sdf.data_ptr(), points.shape[0])
        return sdf
    native("film_siren", points)(
        _native_network(network, layers), points.data_ptr(), image.data_ptr(), sdf.data_ptr(), 0, 0, points.shape[0]
    )
    return sdf


def _sample_fake(
    points: Tensor, image: Tensor, network: list[Tensor], layers: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    _check_points("film_siren_sample", points, image, network, layers)
    return points.new_empty(points.shape[0]), torch.empty_like(points), torch.empty_like(points)


def _sample_kernel(
    points: Tensor, image: Tensor, network: list[Tensor], layers: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    outputs = _sample_fake(points, image, network, layers)
    addresses = [tensor.data_ptr() for tensor in (points, image, *outputs)]
    native("film_siren", points)(_native_network(network, layers), *addresses, points.shape[0])
    return outputs


def _trace_fake(
    cameras: Tensor,
    network: list[Tensor],
    layers: list[int],
    levels: list[float],
    fov: float,
    jitter: Tensor | None,
    most_layers: int,
) -> tuple[Tensor, ...]:
    check = Checker("film_siren_trace")
    check("cameras", cameras, ("B", 3, 4), REAL)
    _check_network(check, network, layers, cameras)
    size = int(levels[-_LEVEL_NUMBERS])
    shape = (cameras.shape[0], size, size)
    if jitter is not None:
        check("jitter", jitter, ("B", size, size), (cameras.dtype,))
    status = cameras.new_full(shape, int(RayStatus.UNTRACED), dtype=torch.uint8)
    counts = torch.zeros(2, dtype=torch.int64, device=cameras.device)
    complete = torch.zeros(status.numel(), dtype=torch.uint8, device=cameras.device)
    met = cameras.new_zeros(most_layers, 4, status.numel())
    return status, cameras.new_zeros(shape), cameras.new_zeros(shape), counts, met, complete


def _trace_kernel(
    cameras: Tensor,
    network: list[Tensor],
    layers: list[int],
    levels: list[float],
    fov: float,
    jitter: Tensor | None,
    most_layers: int,
) -> tuple[Tensor, ...]:
    outputs = _trace_fake(cameras, network, layers, levels, fov, jitter, most_layers)
    *traced, layers_met, complete = outputs
    native_levels = []
    for i in range(0, len(levels), _LEVEL_NUMBERS):
        size, steps, *rules, refine, footprint, radius, start, reach, patience = levels[i : i + _LEVEL_NUMBERS]
        own = (*rules, int(refine), footprint)
        native_levels.append((int(size), int(steps), own, radius, start, reach, patience))
    native("film_siren_trace", cameras)(
        _native_network(network, layers),
        cameras.data_ptr(),
        native_levels,
        0 if jitter is None else jitter.data_ptr(),
        *(tensor.data_ptr() for tensor in traced),
        layer_arrays(layers_met, complete, None) if most_layers else (0, 0, 0, 0),
        1 / math.tan(fov / 2),
    )
    return outputs


_LEVEL_NUMBERS = len(TraceLevel._fields) - 1 + len(MarchRules._fields)

_film_siren = register(
    "film_siren(Tensor points, Tensor image, Tensor[] network, int[] layers) -> Tensor", _kernel, _fake
)
_film_siren_sample = register(
    "film_siren_sample(Tensor points, Tensor image, Tensor[] network, int[] layers) -> (Tensor, Tensor, Tensor)",
    _sample_kernel,
    _sample_fake,
)
_film_siren_trace = register(
    "film_siren_trace(Tensor cameras, Tensor[] network, int[] layers, float[] levels, float fov, Tensor? jitter,"
    " int most_layers) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _trace_kernel,
    _trace_fake,
)
