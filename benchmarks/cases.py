"""What is measured. A case makes comparisons; `bench.py` times them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import baselines
from blobs import blobs
from coordinates import comparisons
from measure import Comparison
from mesh_distances import mesh_distance
from sdfgan import _C, cameras, meshes, ops, raycast
from sdfgan.fields import FilmSirenSDF, Sphere
from sdfgan.fields.base import Field
from sdfgan.fields.film_siren import FilmCondition
from sdfgan.ops import reference
from sdfgan.raycast.levels import march_levels

_IMAGES = 16
_POINTS = 15_360
_FREE = 32  # points of the eikonal term for each picture, besides those of its samples
_WIDTHS = (64, 128, 256)
_SCALES = {64: (16, 4), 128: (32, 4)}


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    quick: bool
    generator: Path | None
    device: str = "cpu"

    def blobs(self, width: int) -> tuple[FilmSirenSDF, Tensor]:
        """See `blobs.blobs`."""
        return blobs(width, self.quick, self.device)

    def axes(self, images: int) -> Tensor:
        """Cameras from all around."""
        angles = torch.linspace(-0.4, 0.9, images), torch.linspace(0, 2 * math.pi * (1 - 1 / images), images)
        return cameras.rotate_axes(angles).to(self.device)


def evaluate(options: Options) -> Iterator[Comparison]:
    """Signed distances of a FiLM-SIREN at 15,360 points of 16 images."""
    points = (2 * torch.rand(_POINTS, 3, generator=torch.Generator().manual_seed(0)) - 1).to(options.device)
    image = torch.arange(_IMAGES, device=options.device).repeat_interleave(_POINTS // _IMAGES)
    for width in _WIDTHS[-1:] if options.quick else _WIDTHS:
        field, latents = options.blobs(width)
        yield _evaluate(field, latents, points, image)
        yield _sample(field, latents, points, image)


def _evaluate(field: FilmSirenSDF, latents: Tensor, points: Tensor, image: Tensor) -> Comparison:
    layers = field.trunk_layers + field.sdf_layers
    work = 2 * len(points) * field.width * (3 + 1 + (layers - 1) * field.width)
    condition = field.condition(latents)
    variants: dict[str, Callable[[], Any]] = {}
    facts: dict[str, dict[str, Any]] = {}
    with torch.enable_grad():  # plain torch
        film = (tensor.double() for tensor in (condition.scales, condition.shifts, condition.base_color))
        exact = copy.deepcopy(field).double().sdf(points.double(), FilmCondition(*film), image)
    for precision in _precisions(points):
        network = field.network(condition, precision)
        variants[f"fused {precision}"] = lambda network=network: ops.film_siren(points, image, network)
        peak = _gpu_peak(precision, points.device) if points.is_cuda else _cpu_peak(precision)
        variants[f"peak {precision}"] = peak
        facts[f"peak {precision}"] = {"work_flop": peak()}
    names = ("faithful", "gather", "seg", "compile", "bf16")
    for name, maker in baselines.evaluators(field, latents, names).items():
        variants[f"torch {name}"] = partial(maker(), points, image)
    peers = ["torch seg", "torch compile", "torch bf16"]
    if points.is_cuda:
        variants["torch graph"] = baselines.CapturedValues(field, latents, points.view(len(latents), -1, 3))
        peers.append("torch graph")
    for name, variant in variants.items():
        if not name.startswith("peak"):
            error = (variant().double() - exact).abs()
            facts[name] = {"work_flop": work, "largest_error": error.max().item()}
    config = {"width": field.width, "points": len(points), "images": len(latents)}
    return Comparison("evaluate", config, variants, tuple(peers), facts)


def _sample(field: FilmSirenSDF, latents: Tensor, points: Tensor, image: Tensor) -> Comparison:
    """With gradient and colour."""
    condition = field.condition(latents)

    def with_graph_operations() -> Any:
        with torch.enable_grad():  # the plain-torch path; parameters need no gradient, so there is no graph
            return field.evaluate(points, condition, image)

    variants = {"fused": lambda: field.evaluate(points, condition, image), "torch adjoint": with_graph_operations}
    config = {"outputs": "sdf, gradient, colour", "width": field.width, "points": len(points)}
    return Comparison("evaluate", config, variants, ("torch adjoint",))


def trace(options: Options) -> Iterator[Comparison]:
    """Whole pictures, from latents and cameras to hit distances; width 256, and on a GPU 128."""
    if options.generator is not None:
        networks = [_trained(options.generator, options.device)]
    else:
        networks = [options.blobs(width) for width in ((256,) if options.device == "cpu" else (256, 128))]
    for field, latents in networks:
        for images in (4,) if options.quick else (4, 16):
            for resolution in (64,) if options.quick else (64, 128):
                axes = options.axes(images)
                yield _trace(field, latents[:images], axes, resolution, options.generator is not None)


def _trace(field: FilmSirenSDF, latents: Tensor, axes: Tensor, resolution: int, trained: bool) -> Comparison:
    images = len(latents)
    scales = _SCALES[resolution]
    # A fitted field is hardly steeper than one; a trained one is, and then what is true needs a safety factor.
    lipschitz = _steepest(field, latents) if trained else 1.0
    truth_hit, truth_depth = _truth(field, latents, axes, resolution, lipschitz)

    def ours(**arguments: Any) -> Callable[[], raycast.SurfaceSamples]:
        return lambda: raycast.multiscale(axes, scales, latents, field, **arguments)

    variants: dict[str, Callable[[], Any]] = {}
    for precision in _precisions(axes):
        variants[f"march {precision}"] = ours(precision=precision)
        if axes.is_cuda:
            variants[f"march {precision}, graph"] = _Captured(field, latents, axes, resolution, precision)
        if trained:
            variants[f"march {precision}, safe"] = ours(precision=precision, lipschitz=lipschitz)
        variants[f"seed's march, fused {precision}"] = ours(precision=precision, algorithm="seed", lipschitz=1.0)
    names = ("faithful", "gather", "seg", "compile", *(("bf16",) if axes.is_cuda or _C.has_bf16() else ()))
    for name, maker in baselines.evaluators(field, latents, names).items():
        # Compiled once: what is timed is tracing, with FiLM folded anew as the others do.
        made = maker() if name == "compile" else None
        variants[f"torch {name}"] = lambda maker=maker, made=made: baselines.trace_seed(made or maker(), axes, scales)
    if axes.is_cuda:
        variants["torch graph"] = baselines.CapturedSeed(field, latents, axes, scales)

    facts = {}
    for name, variant in variants.items():
        answer = variant()
        if isinstance(answer, raycast.SurfaceSamples):
            hit = answer.mask.masked_scatter(answer.mask, answer.hit)
            depth = axes.new_zeros(hit.shape).masked_scatter(answer.mask, answer.distances)
            facts[name] = {"useful_lanes": answer.queries / answer.lanes}
        else:
            hit, depth = answer.hit, answer.distance
            facts[name] = {}
        both = hit & truth_hit
        error = (depth - truth_depth)[both].abs()
        facts[name] |= {
            "queries": answer.queries,
            "iou": ((hit & truth_hit).sum() / (hit | truth_hit).sum()).item(),
            "depth_median": error.median().item(),
            "depth_p99": error.quantile(0.99).item(),
        }
        if name.startswith("torch seg"):
            peer = hit, depth
    same = raycast.multiscale(axes, scales, latents, field, algorithm="seed", lipschitz=1.0)
    hit = same.mask.masked_scatter(same.mask, same.hit)
    depth = axes.new_zeros(hit.shape).masked_scatter(same.mask, same.distances)
    error = (depth - peer[1])[hit & peer[0]].abs()
    facts["seed's march, fused fp32"] |= {
        "iou_with_torch_seg": ((hit & peer[0]).sum() / (hit | peer[0]).sum()).item(),
        "depth_p99_with_torch_seg": error.quantile(0.99).item(),
    }
    for fact in facts.values():
        fact["queries_of_seed"] = fact["queries"] / facts["torch faithful"]["queries"]
    config = {"weights": "trained" if trained else "blobs", "width": field.width, "images": images, "side": resolution}
    if trained:
        config["steepest"] = round(lipschitz, 2)
    peers = ("torch faithful", "torch seg", "torch compile", *(("torch graph",) if axes.is_cuda else ()))
    return Comparison("trace", config, variants, peers, facts, warm=True)


class _Captured:
    """`multiscale`'s march as a CUDA graph: what a frame costs once nothing but the cameras changes."""

    def __init__(self, field: FilmSirenSDF, latents: Tensor, axes: Tensor, resolution: int, precision: str) -> None:
        network = field.network(field.condition(latents), precision)
        camera = cameras.orbit_camera(axes).contiguous()
        levels = march_levels(resolution, cameras.DEFAULT_FOV, threshold=1e-4, steps=300, native="cuda")

        self.inputs = network, camera  # the graph reads them where they are

        def run() -> tuple[Tensor, ...]:
            return ops.film_siren_trace(camera, levels, network, cameras.DEFAULT_FOV)

        run()
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.status, self.distance, _, self.counts = run()

    def __call__(self) -> _Captured:
        self.graph.replay()
        return self

    @property
    def hit(self) -> Tensor:
        return self.status == int(ops.RayStatus.HIT)

    @property
    def queries(self) -> int:
        return int(self.counts[0])


def _truth(
    field: FilmSirenSDF, latents: Tensor, axes: Tensor, resolution: int, lipschitz: float
) -> tuple[Tensor, Tensor]:
    """Hits and depths of a plain march of every pixel, 300 steps (more for steep fields), refined."""
    camera = cameras.orbit_camera(axes).contiguous()
    rules = ops.MarchRules(1e-4, lipschitz=lipschitz, refine=8)
    level = ops.TraceLevel(resolution, math.ceil(300 * lipschitz), rules)
    network = field.network(field.condition(latents))
    status, distance, *_ = ops.film_siren_trace(camera, [level], network, cameras.DEFAULT_FOV)
    return status == int(ops.RayStatus.HIT), distance


def _steepest(field: FilmSirenSDF, latents: Tensor) -> float:
    points = 2 * torch.rand(4096 * len(latents), 3, generator=torch.Generator().manual_seed(0)).to(latents) - 1
    image = torch.arange(len(latents), device=latents.device).repeat_interleave(4096)
    return field.sdf_and_gradient(points, field.condition(latents), image)[1].norm(dim=-1).max().item()


def _trained(folder: Path, device: str) -> tuple[FilmSirenSDF, Tensor]:
    from sdfgan.gan import load_generator, sample_latents

    field, config = load_generator(folder)
    return field.requires_grad_(False).to(device), sample_latents(config, range(_IMAGES)).to(device)


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
            scales = _SCALES[resolution]
            variants = {
                "march": lambda axes=axes, scales=scales, f=foreign: raycast.multiscale(axes, scales, None, f),
                "torch, seed's march": lambda axes=axes, scales=scales, f=function: baselines.trace_seed(
                    f, axes, scales
                ),
            }
            facts = {key: {"queries": variant().queries} for key, variant in variants.items()}
            config = {"field": name, "images": images, "side": resolution}
            yield Comparison("field", config, variants, ("torch, seed's march",), facts)


class _Foreign(Field):
    """Somebody else's field: it has values, and nothing else that we could use."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], images: int) -> None:
        super().__init__()
        self.function, self.images = function, images

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        return self.function(points, image)


def operators(options: Options) -> Iterator[Comparison]:
    """Positional encoding, inverse-transform sampling, a tracing step with compaction, rays of pixels."""
    random = torch.Generator().manual_seed(0)
    count = 2**14 if options.quick else 2**17

    x = torch.rand(count, 3, generator=random).to(options.device)
    plain = baselines.positional_encoding
    compiled = torch.compile(plain, dynamic=False)
    yield Comparison(
        "ops",
        {"op": "positional_encoding", "points": count, "octaves": 10},
        {
            "sdfgan": lambda: ops.positional_encoding(x, 10, include_input=True),
            "torch": lambda: plain(x, 10),
            "torch.compile": lambda: compiled(x, 10),
        },
        ("torch", "torch.compile"),
    )

    rays, bins, samples = count // 16, 64, 128
    edges = torch.rand(rays, bins + 1, generator=random).cumsum(-1).to(options.device)
    weights = torch.rand(rays, bins, generator=random).to(options.device)
    u = (torch.arange(samples, device=options.device) + 0.5).expand(rays, samples) / samples
    compiled_pdf = torch.compile(baselines.sample_pdf, dynamic=False)
    yield Comparison(
        "ops",
        {"op": "sample_pdf", "rays": rays, "bins": bins, "samples": samples},
        {
            "sdfgan": lambda: ops.sample_pdf(edges, weights, samples),
            "torch": lambda: baselines.sample_pdf(edges, weights, u),
            "torch.compile": lambda: compiled_pdf(edges, weights, u),
        },
        ("torch", "torch.compile"),
    )

    yield from _compositing(options, 512 if options.quick else 4096, 128)

    origins = torch.rand(count, 3, generator=random)
    directions = torch.nn.functional.normalize(torch.rand(count, 3, generator=random) - 0.5, dim=-1)
    far, values = torch.full((count,), 3.0), torch.rand(count, generator=random) - 0.2
    origins, directions, far, values = (tensor.to(options.device) for tensor in (origins, directions, far, values))
    alive = torch.arange(count, dtype=torch.int32, device=options.device)
    number = torch.tensor([count], dtype=torch.int32, device=options.device)
    state, status = ops.start_march(torch.zeros_like(far), far)
    long = alive.long()

    def ours() -> Any:
        own = state.clone(), status.clone()
        return ops.trace_step(values, alive, number, origins, directions, far, *own, ops.MarchRules(0.0))

    yield Comparison(
        "ops",
        {"op": "trace_step", "rays": count},
        {
            "sdfgan": ours,
            "torch": lambda: baselines.trace_step(values, long, origins, directions, far, state.clone(), 0.0),
        },
        ("torch",),
    )

    camera = cameras.orbit_camera(options.axes(4)).contiguous()
    side = int(math.sqrt(count / 4))
    pixels = torch.arange(4 * side * side, device=options.device)
    yield Comparison(
        "ops",
        {"op": "generate_rays", "rays": len(pixels)},
        {
            "sdfgan": lambda: ops.generate_rays(camera, pixels, side, side, 0.4),
            "torch": lambda: reference.generate_rays(camera, pixels, side, side, 0.4),
        },
        ("torch",),
    )


def _compositing(options: Options, rays: int, samples: int) -> Iterator[Comparison]:
    """Weights, colour, opacity and depth of rays; then with the gradient by densities and colours."""
    random = torch.Generator().manual_seed(0)
    densities, deltas = (torch.rand(rays, samples, generator=random).to(options.device) for _ in range(2))
    densities, deltas = 3 * densities, deltas / 20
    colors = torch.rand(rays, samples, 3, generator=random).to(options.device)
    distances = deltas.cumsum(1)

    def with_gradient(function: Callable[..., Any]) -> Any:
        with torch.enable_grad():
            leaves = densities.detach().requires_grad_(), colors.detach().requires_grad_()
            weights, opacity, rgb, depth = function(leaves[0], deltas, leaves[1], distances)
            return torch.autograd.grad(rgb.sum() + opacity.sum() + depth.sum() + weights.square().sum(), leaves)

    compiled = torch.compile(baselines.composite, dynamic=False)
    functions = {"sdfgan": ops.composite, "torch": baselines.composite, "torch.compile": compiled}
    for name, call in (
        ("composite", lambda function: function(densities, deltas, colors, distances)),
        ("composite and gradient", with_gradient),
    ):
        variants = {variant: partial(call, function) for variant, function in functions.items()}
        facts = {"op": name, "rays": rays, "samples": samples}
        yield Comparison("ops", facts, variants, ("torch", "torch.compile"))


def mesh(options: Options) -> Iterator[Comparison]:
    """A mesh of a grid of 256^3 cells; what plain torch needs for the values alone is measured on a share of it."""
    field, latents = options.blobs(256)
    condition = field.condition(latents[:1])
    resolution, share = (64, 8) if options.quick else (256, 64)
    slabs = len(range(0, resolution + 1, share))
    dense = partial(baselines.dense_grid, device=options.device)
    values = meshes._grid_values(field, condition, resolution, 1.0, None)
    error = _farthest_vertex(field, condition, meshes.marching_cubes(field, condition, resolution), resolution)
    del values

    def fused(points: Tensor, image: Tensor) -> Tensor:
        return field.sdf(points, condition, image)

    seg = baselines.seg(field, latents[:1])
    compiled = baselines.seg(field, latents[:1], compiled=True)
    variants = {
        "marching_cubes": lambda: meshes.marching_cubes(field, condition, resolution),
        "fused, every point": lambda: dense(fused, resolution, share),
        "torch seg, every point": lambda: dense(seg, resolution, share),
        "torch compile, every point": lambda: dense(compiled, resolution, share),
    }
    whole = (resolution + 1) / slabs
    scale = {name: whole for name in variants if "every point" in name}
    facts = {"marching_cubes": {"farthest_vertex_cells": error}}
    config = {"cells": f"{resolution}^3", "width": field.width}
    names = ("torch seg, every point", "torch compile, every point")
    yield Comparison("mesh", config, variants, names, facts, scale)


def _farthest_vertex(field: FilmSirenSDF, condition: Any, surface: Any, resolution: int) -> float:
    """How far vertices lie from the true level set, in cells: |sdf| / |gradient|."""
    vertices = torch.from_numpy(surface.vertices).to(field.sdf_head)
    image = torch.zeros(len(vertices), dtype=torch.int64, device=vertices.device)
    value, gradient = field.sdf_and_gradient(vertices, condition, image)
    return (value.abs() / gradient.norm(dim=-1)).max().item() * resolution / 2


def step(options: Options) -> Iterator[Comparison]:
    """A picture and its gradient, as in a GAN's training: with the eikonal term, to the gradient of every weight."""
    torch.manual_seed(0)
    for width, images in ((64, _IMAGES),) if options.quick else ((64, _IMAGES), (256, 4)):
        yield _step(*options.blobs(width), options.axes(images))


def _step(field: FilmSirenSDF, latents: Tensor, axes: Tensor) -> Comparison:
    field.requires_grad_()
    latents, scales = latents[: len(axes)], _SCALES[64]
    random = torch.Generator().manual_seed(0)
    free = (2 * torch.rand(len(axes) * _FREE, 3, generator=random) - 1).to(axes)
    image = torch.arange(len(axes), device=axes.device).repeat_interleave(_FREE)

    def ours(own: Field) -> tuple[Tensor, Tensor]:
        condition = own.condition(latents)
        picture = raycast.render(sdf=own, axes=axes, condition=condition, resolution=64)
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
        "torch seed, faithful": partial(baselines.seed_losses, field, latents, axes, scales, True),
        "torch seed, gather": partial(baselines.seed_losses, field, latents, axes, scales, False),
    }
    config = {"images": len(axes), "side": 64, "width": field.width}
    variants = {name: partial(run, made) for name, made in losses.items()}
    return Comparison("step", config, variants, tuple(name for name in losses if name != "render"))


class _WithoutNetwork(Field):
    """A FilmSirenSDF whose values at the steps of a trace are computed by torch."""

    def __init__(self, field: FilmSirenSDF) -> None:
        super().__init__()
        self.field = field
        self.condition, self.evaluate, self.sdf_and_gradient = field.condition, field.evaluate, field.sdf_and_gradient

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        graph = torch.is_grad_enabled()
        with torch.enable_grad():  # the plain-torch path
            value = self.field.sdf(points, condition, image)
        return value if graph else value.detach()


def _precisions(like: Tensor) -> tuple[str, ...]:
    if like.is_cuda:
        return ("fp16", "fp32") if torch.cuda.get_device_capability() >= (8, 0) else ("fp32",)
    return ("fp32", "bf16") if _C.has_bf16() else ("fp32",)


def _cpu_peak(precision: str) -> Callable[[], float]:
    """Multiply-adds of vectors in registers; returns how many FLOP that was."""
    return partial(_C.multiply_adds, torch.get_num_threads(), precision == "bf16")


def _gpu_peak(precision: str, device: torch.device, size: int = 8192) -> Callable[[], float]:
    """A large matrix product of torch's; returns how many FLOP that was."""
    a = torch.randn(size, size, device=device, dtype=torch.float16 if precision == "fp16" else torch.float32)

    def run() -> float:
        a @ a
        return 2.0 * size**3

    return run


def coordinates(options: Options) -> Iterator[Comparison]:
    """Hash grids and perceptrons, which fields of one shape are made of."""
    yield from comparisons(options.quick, options.device)


CASES: dict[str, Callable[[Options], Iterator[Comparison]]] = {
    "evaluate": evaluate,
    "trace": trace,
    "field": any_field,
    "ops": operators,
    "coordinates": coordinates,
    "mesh": mesh,
    "mesh_distance": mesh_distance,
    "step": step,
}
