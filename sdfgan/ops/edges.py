"""Edges of layers: how much of its pixel each layer of an image covers, and whose edge says so."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._library import REAL, Checker, named, native, refuse_gradient, register


class LayerEdges(NamedTuple):
    """The edges of N layers; see `layer_edges`."""

    source: Tensor  # [N] int64: the layer whose edge it is, mostly itself
    nearest: Tensor  # [N] sdf at the layer's centre that this edge tells
    area: Tensor  # [N] of the pixel that the layer covers; 1 where it is opaque


def layer_edges(
    pixel: Tensor,
    hit: Tensor,
    opaque: Tensor,
    near: Tensor,
    t: Tensor,
    nearest: Tensor,
    normal: Tensor,
    size: Tensor,
    camera: Tensor,
    resolution: int,
    *,
    all_hits: bool,
) -> LayerEdges:
    """Edges of N layers of B images of side R, sorted by pixel, then front to back.

    To first order an edge is a straight line in the image, at the distance nearest / (size |normal across the image|)
    in pixels. Outside of a solid that is its contour; inside, the sdf of a part whose rim is thinner than a pixel is
    that of its faces. So hits in such parts, those that are not opaque, take the edge of the miss beside them that is
    most nearly straight across (`csrc/core/edges.h` has the rules), and are not opaque then.

    Nothing waits for the device. Not differentiable: RuntimeError when a tensor requires grad.

    Args:
        pixel: [N] int64, (b R + row) R + column, ascending.
        hit, opaque, near: [N] bool: rays that meet the surface; layers that cover their pixels whole; those that count.
        t, nearest: [N] float32 or float64: where along the ray, and the sdf there.
        normal: [N, 3] gradient of the sdf there, of any length.
        size: [N] side of a pixel there, world units.
        camera: [B, 3, 4] camera to world.
        resolution: R.
        all_hits: all hits take the edges of misses, not only those in thin parts.
    """
    real = {"t": t, "nearest": nearest, "normal": normal, "size": size, "camera": camera}
    refuse_gradient("layer_edges", pixel=pixel, hit=hit, opaque=opaque, near=near, **real)
    return LayerEdges(*_op(pixel, hit, opaque, near, *real.values(), resolution, all_hits))


def _fake(
    pixel: Tensor,
    hit: Tensor,
    opaque: Tensor,
    near: Tensor,
    t: Tensor,
    nearest: Tensor,
    normal: Tensor,
    size: Tensor,
    camera: Tensor,
    resolution: int,
    all_hits: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    check = Checker("layer_edges")
    check("pixel", pixel, ("N",), (torch.int64,))
    for name, flags in (("hit", hit), ("opaque", opaque), ("near", near)):
        check(name, flags, ("N",), (torch.bool,))
    check("t", t, ("N",), REAL)
    check("nearest", nearest, ("N",), (t.dtype,))
    check("normal", normal, ("N", 3), (t.dtype,))
    check("size", size, ("N",), (t.dtype,))
    check("camera", camera, ("B", 3, 4), (t.dtype,))
    if resolution < 1:
        raise ValueError(f"layer_edges: resolution must be at least 1, got {resolution}")
    return torch.empty_like(pixel), torch.empty_like(nearest), torch.empty_like(nearest)


def _kernel(*given: Any) -> tuple[Tensor, Tensor, Tensor]:
    source, nearest, area = outputs = _fake(*given)
    native(nearest).layer_edges(**named(_op, given), source=source, nearest_out=nearest, area=area, layers=len(source))
    return outputs


_op = register(
    "layer_edges(Tensor pixel, Tensor hit, Tensor opaque, Tensor near, Tensor t, Tensor nearest, Tensor normal,"
    " Tensor size, Tensor camera, int resolution, bool all_hits) -> (Tensor, Tensor, Tensor)",
    _kernel,
    _fake,
)
