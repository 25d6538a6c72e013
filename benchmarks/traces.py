"""Whole images traced: against plain torch, and with the switches of the tracer on a GPU."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import baselines
from measure import Comparison, gpu_peak, lazily, precisions, recorded
from options import Options
from sdfgan import _C, cameras, ops, raycast
from sdfgan.fields import FilmSirenSDF
from sdfgan.raycast.multiscale import MarchOptions, PixelTrace, Tracer

SCALES = {64: (16, 4), 128: (32, 4)}
_IMAGES = 16
_WIDTHS = (64, 128, 256)
_SWITCHES = {  # of the native tracer on a GPU, by what they are called here
    "coarsest": "SDFGAN_COARSEST",
    "cone steps": "SDFGAN_CONE_STEPS",
    "factor": "SDFGAN_FACTOR",
    "warps": "SDFGAN_TRACE_WARPS",
    "tail": "SDFGAN_TRACE_TAIL",
    "ring": "SDFGAN_TRACE_RING",
}


class _Found(NamedTuple):
    """What a march has found, whoever has marched."""

    hit: Tensor  # [B, R, R] bool
    depth: Tensor  # [B, R, R], of hits
    queries: int
    lanes: int | None = None  # evaluated, idle ones included


def _found(answer: Any, images: int, side: int) -> _Found:
    if isinstance(answer, raycast.SurfaceSamples):
        hit = answer.mask.masked_scatter(answer.mask, answer.hit)
        depth = answer.distances.new_zeros(hit.shape).masked_scatter(answer.mask, answer.distances)
        return _Found(hit, depth, answer.queries, answer.lanes)
    if isinstance(answer, PixelTrace):
        hit, depth = answer.status == int(ops.RayStatus.HIT), answer.distance
        return _Found(hit.view(images, side, side), depth.view(images, side, side), *answer.counts.tolist())
    return _Found(answer.hit, answer.distance, answer.queries)


def _agreement(found: _Found, truth: _Found) -> dict[str, float]:
    both = found.hit & truth.hit
    facts = {"iou": (both.sum() / (found.hit | truth.hit).sum()).item()}
    if both.any():
        error = (found.depth - truth.depth)[both].abs()
        facts |= {"depth_median": error.median().item(), "depth_p99": error.quantile(0.99).item()}
    return facts


def trace(options: Options) -> Iterator[Comparison]:
    """Whole pictures, from latents and cameras to hit distances; width 256, and on a GPU 128."""
    if options.generator is not None:
        networks = [_trained(options.generator, options.device)]
    else:
        networks = [options.blobs(width) for width in ((256,) if options.device == "cpu" else (256, 128))]
    for field, latents in networks:
        for images in (4,) if options.quick else (_IMAGES, 4):
            for resolution in (64,) if options.quick else (128, 64):
                axes = options.axes(images)
                yield _trace(field, latents[:images], axes, resolution, options.generator is not None)


def _trace(field: FilmSirenSDF, latents: Tensor, axes: Tensor, resolution: int, trained: bool) -> Comparison:
    images, scales = len(latents), SCALES[resolution]
    # A fitted field is hardly steeper than one; a trained one is, and then what is true needs a safety factor.
    lipschitz = _steepest(field, latents) if trained else 1.0
    truth = functools.cache(partial(_truth, field, latents, axes, resolution, lipschitz))

    def ours(**arguments: Any) -> Callable[[], raycast.SurfaceSamples]:
        return lambda: raycast.multiscale(axes, scales, latents, field, **arguments)

    variants: dict[str, Callable[[], Any]] = {}
    for precision in precisions(axes.device):
        variants[f"march {precision}"] = ours(precision=precision)
        if axes.is_cuda:
            variants[f"march {precision}, graph"] = lazily(
                partial(captured_march, field, latents, axes, resolution, precision)
            )
        if trained:
            variants[f"march {precision}, safe"] = ours(precision=precision, lipschitz=lipschitz)
        variants[f"dfr's march, fused {precision}"] = ours(precision=precision, algorithm="dfr", lipschitz=1.0)
    names = ("faithful", "gather", "seg", "compile", *(("bf16",) if axes.is_cuda or _C.has_bf16() else ()))
    for name, make in baselines.evaluators(field, latents, names).items():
        # Compiled once, with its FiLM folded once; the others fold it anew each time, as ours do.
        variants[f"torch {name}"] = (
            lazily(lambda make=make: partial(baselines.trace_dfr, make(), axes, scales))
            if name == "compile"
            else lambda make=make: baselines.trace_dfr(make(), axes, scales)
        )
    if axes.is_cuda:
        variants["torch graph"] = lazily(partial(baselines.CapturedDfr, field, latents, axes, scales))

    same_march = ours(precision="fp32", algorithm="dfr", lipschitz=1.0)  # as what it is compared with
    dfr = functools.cache(lambda: _found(same_march(), images, resolution))

    def examine(name: str, answer: Any) -> dict[str, Any]:
        found = _found(answer, images, resolution)
        facts: dict[str, Any] = {"queries": found.queries, **_agreement(found, truth())}
        facts["queries_of_dfr"] = found.queries / dfr().queries
        if found.lanes:
            facts["useful_lanes"] = found.queries / found.lanes
        if name == "torch seg":
            facts |= {f"{key}_with_fused": value for key, value in _agreement(dfr(), found).items()}
        return facts

    config = {"weights": "trained" if trained else "blobs", "width": field.width, "images": images, "side": resolution}
    if trained:
        config["steepest"] = round(lipschitz, 2)
    peers = ("torch faithful", "torch seg", "torch compile", *(("torch graph",) if axes.is_cuda else ()))
    return Comparison("trace", config, variants, peers, examine=examine)


def captured_march(
    field: FilmSirenSDF, latents: Tensor, axes: Tensor, resolution: int, precision: str
) -> Callable[[], PixelTrace]:
    """`multiscale`'s march as a CUDA graph: what a frame costs once nothing but the cameras changes."""
    options = MarchOptions(precision=precision)
    tracer = Tracer(field, field.condition(latents), axes, cameras.DEFAULT_FOV, options)
    levels = tracer.levels(resolution, 1e-4, margin=0.5, inset=0.0)
    return recorded(lambda: tracer.trace(levels), axes.device)


def _truth(field: FilmSirenSDF, latents: Tensor, axes: Tensor, resolution: int, lipschitz: float) -> _Found:
    """A plain march of every pixel, 300 steps (more for steep fields), refined."""
    camera = cameras.orbit_camera(axes).contiguous()
    rules = ops.MarchRules(1e-4, lipschitz=lipschitz, refine=8)
    level = ops.TraceLevel(resolution, math.ceil(300 * lipschitz), rules, radius=field.extent)
    network = field.network(field.condition(latents))
    status, distance, _, counts, _ = ops.film_siren_trace(camera, [level], network, cameras.DEFAULT_FOV)
    return _Found(status == int(ops.RayStatus.HIT), distance, *counts.tolist())


def _steepest(field: FilmSirenSDF, latents: Tensor) -> float:
    points = 2 * torch.rand(4096 * len(latents), 3, generator=torch.Generator().manual_seed(0)).to(latents) - 1
    image = torch.arange(len(latents), device=latents.device).repeat_interleave(4096)
    return field.sdf_and_gradient(points, field.condition(latents), image)[1].norm(dim=-1).max().item()


def _trained(folder: Path, device: str) -> tuple[FilmSirenSDF, Tensor]:
    from sdfgan.gan import load_generator, sample_latents

    field, config = load_generator(folder)
    return field.requires_grad_(False).to(device), sample_latents(config, range(_IMAGES)).to(device)


def knobs(options: Options) -> Iterator[Comparison]:
    """The tracer alone on a GPU, 16 x 128^2, with each setting of its switches (environment variables)."""
    if options.device == "cpu":
        print("knobs: for a GPU (--device cuda)")
        return
    for width in _WIDTHS[-1:] if options.quick else reversed(_WIDTHS):
        yield _knobs(*options.blobs(width), options.axes(_IMAGES), options.quick)


def _knobs(field: FilmSirenSDF, latents: Tensor, axes: Tensor, quick: bool) -> Comparison:
    side = 128
    truth = functools.cache(partial(_truth, field, latents, axes, side, 1.0))
    variants: dict[str, Callable[[], Any]] = {}

    def add(precision: str, settings: dict[str, int], eager: bool = False) -> None:
        name = ", ".join([precision, "eager" if eager else "graph", *(f"{key} {settings[key]}" for key in settings)])
        if eager:
            run = partial(raycast.multiscale, axes, SCALES[side], latents, field, precision=precision)
            variants[name] = partial(_with_switches, settings, run)
        else:
            make = partial(captured_march, field, latents, axes, side, precision)
            variants[name] = lazily(partial(_with_switches, settings, make))

    fastest, *others = precisions(axes.device)
    for precision in (fastest, *others):
        for eager in (False, True):
            add(precision, {}, eager)
    for settings in [] if quick else _sweep(field.width):
        add(fastest, settings)
        if settings.get("cone steps") in (8, 24):
            for precision in others:
                add(precision, settings)
    layers = field.trunk_layers + field.sdf_layers
    work = 2 * field.width * (3 + 1 + (layers - 1) * field.width)  # of a query
    variants[f"peak {fastest}"] = lazily(partial(gpu_peak, fastest, axes.device))

    def examine(name: str, answer: Any) -> dict[str, Any]:
        if name.startswith("peak"):
            return {"work_flop": answer}
        found = _found(answer, _IMAGES, side)
        facts = {"queries": found.queries, "work_flop": found.queries * work, **_agreement(found, truth())}
        return facts | ({"useful_lanes": found.queries / found.lanes} if found.lanes else {})

    config = {"width": field.width, "images": _IMAGES, "side": side}
    return Comparison("knobs", config, variants, examine=examine, most_rounds=3)


def _sweep(width: int) -> Iterator[dict[str, int]]:
    """What to try: when a block's warps share rays, levels, then how a launch is cut into warps."""
    for tail in (0, 1, 2, 4, 8) if width < 256 else ():
        yield {"tail": tail}
    if width == 256:  # whose weights pass through a ring
        yield {"ring": 0}
    for coarsest, steps in product((4, 8, 16, 32, 64), (4, 8, 12, 24)):
        yield {"coarsest": coarsest, "cone steps": steps}
    for factor in (2, 4):
        yield {"factor": factor}
        yield {"coarsest": 8, "factor": factor}
    for warps in range(1, 9):
        yield {"warps": warps}


@contextmanager
def _switches(settings: dict[str, int]) -> Iterator[None]:
    """Environment variables as given, the others of the tracer's unset."""
    before = {name: os.environ.pop(name, None) for name in _SWITCHES.values()}
    os.environ.update({_SWITCHES[key]: str(value) for key, value in settings.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _with_switches(settings: dict[str, int], run: Callable[[], Any]) -> Any:
    with _switches(settings):
        return run()
