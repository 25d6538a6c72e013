"""What is measured. A case makes comparisons; `bench.py` times them."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

import baselines
from coordinates import comparisons
from measure import Comparison, cpu_peak, gpu_peak, lazily, precisions, recorded
from mesh_distances import mesh_distance, mesh_raycast
from mesh_peers import marching, mesh_signs, surface_points
from operators import operators
from options import Options
from sdfgan import _C, ops, raycast
from sdfgan.data.shapes import render_shapes
from sdfgan.fields import FilmSirenSDF, Sphere
from sdfgan.fields.base import Field
from sdfgan.fields.film_siren import FilmCondition
from traces import SCALES, knobs, trace

_IMAGES = 16
_POINTS = 15_360
_POINTS_OF_GPU = 2**20  # on which one pass over 15,360 takes less time than to launch it
_STEPS_OF_R1 = 8  # of which one has the penalty
_STEPS_TO_SHAPES = 60  # of a GAN, after which its fakes cover about as much as later
_FREE = 32  # points of the eikonal term for each picture, besides those of its samples
_WIDTHS = (64, 128, 256)
_GRADIENT_POINTS = (2400, 20_000)  # of one chunk of a GAN's pictures at 32^2 and at 128^2, about
_GRADIENT_POINTS_OF_GPU = (2400, 20_000, 200_000)


def evaluate(options: Options) -> Iterator[Comparison]:
    """Signed distances of a FiLM-SIREN at 15,360 points of 16 images; on a GPU at a million, too."""
    for width in _WIDTHS[-1:] if options.quick else reversed(_WIDTHS):
        field, latents = options.blobs(width)
        for count in (_POINTS,) if options.device == "cpu" else (_POINTS_OF_GPU, _POINTS):
            points = (2 * torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) - 1).to(options.device)
            image = torch.arange(_IMAGES, device=options.device).repeat_interleave(count // _IMAGES)
            yield _evaluate(field, latents, points, image)
            yield _sample(field, latents, points, image)


def _evaluate(field: FilmSirenSDF, latents: Tensor, points: Tensor, image: Tensor) -> Comparison:
    layers = field.trunk_layers + field.sdf_layers
    work = 2 * len(points) * field.width * (3 + 1 + (layers - 1) * field.width)
    condition = field.condition(latents)
    variants: dict[str, Callable[[], Any]] = {}

    @functools.cache
    def exact() -> Tensor:
        film = (tensor.double() for tensor in (condition.scales, condition.shifts, condition.base_color))
        with torch.enable_grad():
            return _plain(copy.deepcopy(field).double()).sdf(points.double(), FilmCondition(*film), image)

    for precision in precisions(points.device):

        def fused(precision: str = precision) -> Callable[[], Tensor]:
            network = field.network(condition, precision)
            return lambda: ops.film_siren(points, image, network)

        variants[f"fused {precision}"] = lazily(fused)
        if points.is_cuda:
            variants[f"fused {precision}, graph"] = lazily(lambda fused=fused: recorded(fused(), points.device))
        peak = partial(gpu_peak, precision, points.device) if points.is_cuda else partial(cpu_peak, precision)
        variants[f"peak {precision}"] = lazily(peak)
    small_on_gpu = points.is_cuda and len(points) < _POINTS_OF_GPU  # then graphs alone are worth comparing
    names = ("seg",) if small_on_gpu else ("faithful", "gather", "seg", "compile", "bf16")
    for name, make in baselines.evaluators(field, latents, names).items():
        variants[f"torch {name}"] = lazily(lambda make=make: partial(make(), points, image))
    if points.is_cuda:
        by_image = points.view(len(latents), -1, 3)
        variants["torch graph"] = lazily(partial(baselines.CapturedValues, field, latents, by_image))

    def examine(name: str, answer: Any) -> dict[str, Any]:
        if name.startswith("peak"):
            return {"work_flop": answer}
        return {"work_flop": work, "largest_error": (answer.double() - exact()).abs().max().item()}

    config = {"width": field.width, "points": len(points), "images": len(latents)}
    peers = tuple(name for name in variants if name in ("torch seg", "torch compile", "torch bf16", "torch graph"))
    return Comparison("evaluate", config, variants, peers, examine=examine)


def _sample(field: FilmSirenSDF, latents: Tensor, points: Tensor, image: Tensor) -> Comparison:
    """With gradient and colour."""
    condition = field.condition(latents)

    def with_graph_operations() -> Any:
        with torch.enable_grad():  # parameters need no gradient, so there is no graph
            return _plain(field).evaluate(points, condition, image)

    variants = {"fused": lambda: field.evaluate(points, condition, image)}
    for precision in precisions(points.device) if points.is_cuda else ():

        def captured(precision: str = precision) -> Callable[[], Any]:
            network = field.network(condition, precision)
            return recorded(lambda: ops.film_siren_sample(points, image, network), points.device)

        variants[f"fused {precision}, graph"] = lazily(captured)
    variants["torch adjoint"] = with_graph_operations
    config = {"outputs": "sdf, gradient, colour", "width": field.width, "points": len(points)}
    return Comparison("evaluate", config, variants, ("torch adjoint",))


def _plain(field: FilmSirenSDF) -> FilmSirenSDF:
    """The same parameters, whose answers are torch's own operations where gradients are enabled."""
    field = copy.copy(field)
    field.native_gradients = False
    return field


def gradient(options: Options) -> Iterator[Comparison]:
    """A FiLM-SIREN's answers with their gradients by all weights, points and latents: the field in a training step."""
    for width in _WIDTHS[:1] if options.quick else _WIDTHS:
        counts = _GRADIENT_POINTS if options.device == "cpu" else _GRADIENT_POINTS_OF_GPU
        for count in counts[:1] if options.quick else counts:
            yield _gradient(*options.blobs(width), count, even=True, values=False)
            if options.device == "cuda":
                continue
            for values in (False, True):
                yield _gradient(*options.blobs(width), count, even=False, values=values)


def _gradient(field: FilmSirenSDF, latents: Tensor, count: int, even: bool, values: bool) -> Comparison:
    """`even`: as many points in each image; else, as in pictures, from half the mean to half as many again."""
    images, random = min(8, len(latents)), torch.Generator().manual_seed(0)
    shares = torch.linspace(1.0, 1.0, images) if even else torch.linspace(0.5, 1.5, images)
    image = torch.arange(images).repeat_interleave((shares * count / images).long()).to(latents.device)
    points = (2 * torch.rand(len(image), 3, generator=random) - 1).to(latents)
    shapes = [image.shape] if values else [image.shape, points.shape, points.shape]
    weights = [torch.randn(shape, generator=random).to(latents) for shape in shapes]
    plain, latents = _plain(field.requires_grad_()), latents[:images].detach()
    field.native_gradients = True  # on CUDA too

    def run(evaluate: Callable[..., Any]) -> list[Tensor]:
        with torch.enable_grad():
            own = [points.requires_grad_(), latents.requires_grad_(), *field.parameters()]
            answers = evaluate(points, field.condition(latents), image)
            answers = [answers] if isinstance(answers, Tensor) else list(answers)
            return list(torch.autograd.grad(answers, own, weights, materialize_grads=True, allow_unused=True))

    name = "sdf" if values else "evaluate"
    by_torch = partial(run, getattr(plain, name))

    @functools.cache
    def expected() -> list[Tensor]:
        return by_torch()

    def examine(_: str, answer: list[Tensor]) -> dict[str, Any]:
        errors = ((a - e).norm() / e.norm().clamp_min(1e-30) for a, e in zip(answer, expected(), strict=True))
        return {"largest_difference": max(error.item() for error in errors)}

    variants = {
        "fused": partial(run, getattr(field, name)),
        "torch adjoint": by_torch,
        "torch compile": lazily(lambda: partial(run, torch.compile(getattr(plain, name)))),
    }
    if points.is_cuda:
        in_half = torch.autocast("cuda", torch.float16)
        variants["fused fp16"] = partial(run, in_half(getattr(field, name)))
        variants["torch adjoint fp16"] = partial(run, in_half(getattr(plain, name)))
    outputs = "sdf" if values else "sdf, gradient, colour"
    config = {"outputs": outputs, "width": field.width, "points": len(image), "images": "even" if even else "uneven"}
    return Comparison("gradient", config, variants, ("torch adjoint", "torch compile"), examine=examine)


def any_field(options: Options) -> Iterator[Comparison]:
    """The generic path: a function of points, a solid of primitives, and the network as a function."""
    field, latents = options.blobs(64)
    condition = field.condition(latents)
    solid = (Sphere(0.4) | Sphere(0.3).translated((0.4, 0.2, 0.1))).to(options.device)
    folded = baselines.seg(field, latents)
    for name, function in (
        ("a solid", lambda points, image: solid.sdf(points)),
        ("a network of width 64", folded),
    ):
        for images, resolution in ((4, 64),) if options.quick else ((4, 64), (16, 128)):
            axes = options.axes(images)
            foreign = _Foreign(function, len(condition))
            scales = SCALES[resolution]
            variants = {
                "march": lambda axes=axes, scales=scales, f=foreign: raycast.multiscale(axes, scales, None, f),
                "torch, dfr's march": lambda axes=axes, scales=scales, f=function: baselines.trace_dfr(f, axes, scales),
            }
            config = {"field": name, "images": images, "side": resolution}
            yield Comparison(
                "field",
                config,
                variants,
                ("torch, dfr's march",),
                examine=lambda _, answer: {"queries": answer.queries},
            )


class _Foreign(Field):
    """Somebody else's field: it has values, and nothing else that we could use."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], images: int) -> None:
        super().__init__()
        self.function, self.images = function, images

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        return self.function(points, image)


def mesh(options: Options) -> Iterator[Comparison]:
    """A mesh of a grid of 256^3 cells; what plain torch needs for the values alone is measured on a share of it."""
    from sdfgan import meshes

    field, latents = options.blobs(256)
    condition = field.condition(latents[:1])
    resolution, share = (64, 8) if options.quick else (256, 64)
    slabs = len(range(0, resolution + 1, share))
    dense = partial(baselines.dense_grid, device=options.device)

    def fused(points: Tensor, image: Tensor) -> Tensor:
        return field.sdf(points, condition, image)

    def by_torch(compiled: bool) -> Callable[[], Any]:
        return lazily(lambda: partial(dense, baselines.seg(field, latents[:1], compiled), resolution, share))

    def examine(name: str, answer: Any) -> dict[str, Any]:
        if name != "marching_cubes":
            return {}
        return {"farthest_vertex_cells": _farthest_vertex(field, condition, answer, resolution)}

    variants = {
        "marching_cubes": lambda: meshes.marching_cubes(field, condition, resolution),
        "fused, every point": lambda: dense(fused, resolution, share),
        "torch seg, every point": by_torch(compiled=False),
        "torch compile, every point": by_torch(compiled=True),
    }
    whole = (resolution + 1) / slabs
    scale = {name: whole for name in variants if "every point" in name}
    config = {"cells": f"{resolution}^3", "width": field.width}
    names = ("torch seg, every point", "torch compile, every point")
    yield Comparison("mesh", config, variants, names, examine=examine, scale=scale)


def _farthest_vertex(field: FilmSirenSDF, condition: Any, surface: Any, resolution: int) -> float:
    """How far vertices lie from the true level set, in cells: |sdf| / |gradient|."""
    vertices = torch.from_numpy(surface.vertices).to(field.sdf_head)
    image = torch.zeros(len(vertices), dtype=torch.int64, device=vertices.device)
    value, gradient = field.sdf_and_gradient(vertices, condition, image)
    return (value.abs() / gradient.norm(dim=-1)).max().item() * resolution / 2


def step(options: Options) -> Iterator[Comparison]:
    """A picture and its gradient, as in a GAN's training: with the eikonal term, to the gradient of every weight."""
    torch.manual_seed(0)
    sizes = ((64, 64),) if options.quick else itertools.product(_WIDTHS, (32, 64, 128))
    for width, side in sizes:
        images = _IMAGES if width * side <= 64 * 64 else 4
        yield _step(*options.blobs(width), options.axes(images), side)


def _step(field: FilmSirenSDF, latents: Tensor, axes: Tensor, side: int) -> Comparison:
    field.requires_grad_()
    latents = latents[: len(axes)]
    random = torch.Generator().manual_seed(0)
    free = (2 * torch.rand(len(axes) * _FREE, 3, generator=random) - 1).to(axes)
    image = torch.arange(len(axes), device=axes.device).repeat_interleave(_FREE)

    def ours(own: Field) -> tuple[Tensor, Tensor]:
        condition = own.condition(latents)
        picture = raycast.render(sdf=own, axes=axes, condition=condition, resolution=side)
        gradients = torch.cat([picture.field.gradient, own.sdf_and_gradient(free, condition, image)[1]])
        return picture.rgba.square().mean(), (gradients.norm(dim=-1) - 1).square().mean()

    def run(losses: Callable[[], tuple[Tensor, Tensor]]) -> None:
        with torch.enable_grad():
            of_picture, eikonal = losses()
            (of_picture + 0.5 * eikonal).backward()
        field.zero_grad()

    losses = {
        "render": partial(ours, field),
        "render, generic trace": partial(ours, _WithoutNetwork(field)),
        "torch gradients": partial(ours, _plain(field)),
    }
    if side == 64 and field.width != 128:  # the slowest by far
        scales = SCALES[side]
        losses["torch dfr, faithful"] = partial(baselines.dfr_losses, field, latents, axes, scales, True)
        losses["torch dfr, gather"] = partial(baselines.dfr_losses, field, latents, axes, scales, False)
    config = {"images": len(axes), "side": side, "width": field.width}
    variants = {name: partial(run, made) for name, made in losses.items()}
    return Comparison("step", config, variants, tuple(name for name in losses if name != "render"))


def gan_step(options: Options) -> Iterator[Comparison]:
    """A whole step of `train-gan` on chairs, with both networks' updates: once its fakes have shapes."""
    from sdfgan.gan import GanConfig  # which need packages that a list of cases does not
    from sdfgan.gan.data import TrainingData
    from sdfgan.gan.job import GanJob

    sizes = ((32, 64),) if options.quick else ((32, 64), (64, 64), (64, 128))
    for side, width in sizes:
        images = TrainingData.of(render_shapes(64, side, family="chairs").images)

        def job(
            native: bool = True, images: TrainingData = images, side: int = side, width: int = width, **settings: Any
        ) -> Callable[[], Any]:
            threads, own = torch.get_num_threads(), {"precision": "fp32", **settings}
            config = GanConfig(resolution=side, width=width, batch_size=_IMAGES, device=options.device, **own)
            made = GanJob(config.resolved(), images)  # works in so many threads, and gives torch one
            made.generator.native_gradients = native

            @torch.enable_grad()
            def run(steps: int = _STEPS_OF_R1) -> None:
                torch.set_num_threads(1 if options.device == "cpu" else threads)
                for _ in range(steps):
                    made.step()
                torch.set_num_threads(threads)

            run(_STEPS_TO_SHAPES)
            return run

        variants = {"sdfgan": lazily(job)}
        if options.device == "cuda" or _C.has_bf16():
            variants["sdfgan, bf16 discriminator"] = lazily(partial(job, precision="bf16"))
        variants["sdfgan, small discriminator"] = lazily(partial(job, discriminator="small"))
        variants["torch gradients"] = lazily(partial(job, native=False))
        variants["torch gradients, small"] = lazily(partial(job, native=False, discriminator="small"))
        config = {"images": _IMAGES, "side": side, "width": width}
        each = dict.fromkeys(variants, 1 / _STEPS_OF_R1)
        yield Comparison("gan_step", config, variants, ("torch gradients", "torch gradients, small"), scale=each)


class _WithoutNetwork(Field):
    """A FilmSirenSDF whose values at the steps of a trace are computed by torch."""

    def __init__(self, field: FilmSirenSDF) -> None:
        super().__init__()
        self.field = field
        self.condition, self.evaluate, self.sdf_and_gradient = field.condition, field.evaluate, field.sdf_and_gradient

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        if torch.is_grad_enabled():
            return self.field.sdf(points, condition, image)
        with torch.enable_grad():
            return _plain(self.field).sdf(points, condition, image).detach()


def coordinates(options: Options) -> Iterator[Comparison]:
    """Hash grids and perceptrons, which fields of one shape are made of."""
    yield from comparisons(options.quick, options.device)


CASES: dict[str, Callable[[Options], Iterator[Comparison]]] = {
    "evaluate": evaluate,
    "gradient": gradient,
    "trace": trace,
    "knobs": knobs,
    "field": any_field,
    "ops": operators,
    "coordinates": coordinates,
    "mesh": mesh,
    "mesh_distance": mesh_distance,
    "mesh_raycast": mesh_raycast,
    "mesh_signs": mesh_signs,
    "marching": marching,
    "surface_points": surface_points,
    "step": step,
    "gan_step": gan_step,
}
