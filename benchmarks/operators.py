"""The operators that are no networks, each beside plain torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

import baselines
from measure import Comparison, lazily
from options import Options
from random_layers import random_layers
from sdfgan import cameras, ops
from sdfgan.ops import reference

_ROUNDS_ON_GPU = 5  # they agree to a hundredth
_SAMPLES = 128  # of a ray


def operators(options: Options) -> Iterator[Comparison]:
    """Encodings, sampling, compositing, a tracing step, rays of pixels; last what torch takes seconds to compile."""
    count = 2**14 if options.quick else 2**17 if options.device == "cpu" else 2**22
    on_gpu = options.device != "cpu" and not options.quick
    rays = count // 16 if on_gpu else 512 if options.quick else 4096
    parts = [
        _trace_step(options, count),
        _layer_step(options, count),
        _layer_edges(options, count),
        _generate_rays(options, count),
        _hash_encoding(options, count // 16),
        _lazy_adam(options, 8 * count),
    ]
    parts += [_packed_compositing(options, rays), _grid_march(options, 512 if options.quick else 16384)]
    parts += [_compositing(options, rays, channels, with_compiled=False) for channels in ((4, 6) if on_gpu else ())]
    parts += [_sample_pdf(options, count // 16), _positional_encoding(options, count)]
    parts.append(_compositing(options, rays, 3, with_compiled=True))
    for part in parts:
        for comparison in part:
            comparison.most_rounds = None if options.device == "cpu" else _ROUNDS_ON_GPU
            yield comparison


def _comparison(config: dict[str, Any], variants: dict[str, Callable[[], Any]]) -> Comparison:
    return Comparison("ops", config, variants, tuple(name for name in variants if name.startswith("torch")))


def _rand(options: Options) -> Callable[..., Tensor]:
    return partial(torch.rand, generator=torch.Generator(options.device).manual_seed(0), device=options.device)


def _compiled(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    return lazily(lambda: partial(torch.compile(function, dynamic=False), *arguments))


def _positional_encoding(options: Options, count: int) -> Iterator[Comparison]:
    x = _rand(options)(count, 3)
    plain = baselines.positional_encoding
    yield _comparison(
        {"op": "positional_encoding", "points": count, "octaves": 10},
        {
            "sdfgan": lambda: ops.positional_encoding(x, 10, include_input=True),
            "torch": lambda: plain(x, 10),
            "torch.compile": _compiled(plain, x, 10),
        },
    )


def _hash_encoding(options: Options, count: int) -> Iterator[Comparison]:
    """With 16 levels of 2 features, as in the paper; then with the gradient by the table."""
    rand = _rand(options)
    size = 2**14 if options.quick else 2**19
    cells = [round(16 * 128 ** (level / 15)) for level in range(16)]
    points, table = rand(count, 3), rand(ops.hash_table_begins(3, cells, size)[-1], 2).requires_grad_()
    weights = rand(count, 32)

    def with_gradient(function: Callable[..., Tensor]) -> Tensor:
        with torch.enable_grad():
            return torch.autograd.grad((function(points, table, cells, size) * weights).sum(), table)[0]

    def values(function: Callable[..., Tensor]) -> Tensor:
        return function(points, table, cells, size)

    for name, call in (("hash_encoding", values), ("hash_encoding and gradient", with_gradient)):
        variants = {"sdfgan": partial(call, ops.hash_encoding), "torch": partial(call, reference.hash_encoding)}
        yield _comparison({"op": name, "points": count, "table": size}, variants)


def _lazy_adam(options: Options, count: int) -> Iterator[Comparison]:
    """A step on a table a tenth of which a batch has reached, in runs of 64; beside torch's, on all."""
    rand = _rand(options)
    reached = (rand(count // 64, 1) < 0.1).expand(-1, 64).reshape(count)
    gradient = rand(count) * reached
    parameter, again, mean, square = rand(count), gradient.clone(), *torch.zeros(2, count, device=options.device)
    step, dense = torch.ones((), device=options.device), parameter.clone().requires_grad_()
    adam = torch.optim.Adam([dense], 1e-3, (0.9, 0.99), 1e-15, fused=True)
    dense.grad = gradient

    def lazily_stepped() -> Tensor:
        again.copy_(gradient)  # which the step leaves at zero
        ops.lazy_adam(parameter, again, mean, square, step, rate=1e-3)
        return again

    def stepped() -> Tensor:
        adam.step()
        return torch.zeros_like(gradient)

    config = {"op": "lazy_adam", "numbers": count, "reached": 0.1}
    yield _comparison(config, {"sdfgan": lazily_stepped, "torch": stepped})


def _sample_pdf(options: Options, rays: int) -> Iterator[Comparison]:
    rand, bins = _rand(options), 64
    edges, weights = rand(rays, bins + 1).cumsum(-1), rand(rays, bins)
    u = (torch.arange(_SAMPLES, device=options.device) + 0.5).expand(rays, _SAMPLES) / _SAMPLES
    yield _comparison(
        {"op": "sample_pdf", "rays": rays, "bins": bins, "samples": _SAMPLES},
        {
            "sdfgan": lambda: ops.sample_pdf(edges, weights, _SAMPLES),
            "torch": lambda: baselines.sample_pdf(edges, weights, u),
            "torch.compile": _compiled(baselines.sample_pdf, edges, weights, u),
        },
    )


def _compositing(options: Options, rays: int, channels: int, with_compiled: bool) -> Iterator[Comparison]:
    """Weights, colour, opacity and depth of rays; then with the gradient by densities and colours."""
    rand, shape = _rand(options), (rays, _SAMPLES)
    densities, deltas = 3 * rand(*shape), rand(*shape) / 20
    inputs = densities, deltas, rand(*shape, channels), deltas.cumsum(1)
    for name, call in (("composite", _values), ("composite and gradient", _with_gradient)):
        variants: dict[str, Callable[[], Any]] = {
            "sdfgan": partial(call, ops.composite, inputs),
            "torch": partial(call, baselines.composite, inputs),
        }
        if with_compiled:
            variants["torch.compile"] = lazily(
                lambda call=call: partial(call, torch.compile(baselines.composite, dynamic=False), inputs)
            )
        yield _comparison({"op": name, "rays": rays, "samples": _SAMPLES, "channels": channels}, variants)


def _packed_compositing(options: Options, rays: int) -> Iterator[Comparison]:
    """The same of rays with as many samples as they need: 12 on average, most have few."""
    rand = _rand(options)
    offsets = torch.cat([torch.zeros(1, device=options.device), (-12 * (1 - rand(rays)).log()).long().cumsum(0)]).long()
    total = int(offsets[-1])
    inputs = 3 * rand(total), rand(total) / 20, rand(total, 3), rand(total)
    function = partial(ops.composite, offsets=offsets)
    for name, call in (("packed composite", _values), ("packed composite and gradient", _with_gradient)):
        config = {"op": name, "rays": rays, "samples": total, "channels": 3}
        yield _comparison(config, {"sdfgan": partial(call, function, inputs)})


def _grid_march(options: Options, rays: int) -> Iterator[Comparison]:
    """The samples of rays through a grid with a ball in it, as a step of `train-nerf` finds them once."""
    rand, resolution = _rand(options), 128
    origins = torch.nn.functional.normalize(rand(rays, 3) - 0.5, dim=1)
    directions = torch.nn.functional.normalize(0.8 * rand(rays, 3) - 0.4 - origins, dim=1)
    axis = torch.linspace(-1, 1, resolution, device=options.device)
    occupied = (torch.cartesian_prod(axis, axis, axis).norm(dim=1) - 0.5).abs() < 0.05
    near, jitter = torch.zeros_like(origins[:, 0]), rand(rays)
    march = ops.GridMarch(origins, directions, near, near + 2, jitter, occupied, resolution, 2 * math.sqrt(3) / 1024)

    def ours() -> Any:
        offsets, _ = ops.march_count(march, 2**24)
        return ops.march_samples(march, offsets, int(offsets[-1]))

    def thin(points: Tensor, directions: Tensor) -> Tensor:
        return torch.zeros_like(points[:, 0])

    yield _comparison(
        {"op": "march_samples", "rays": rays, "samples": len(ours().deltas)},
        {"sdfgan": ours, "torch": lambda: reference.grid_march(march, thin, math.inf)},
    )


def _values(function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Any:
    return function(*inputs)


def _with_gradient(function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Any:
    densities, deltas, colors, distances = inputs
    with torch.enable_grad():
        leaves = densities.detach().requires_grad_(), colors.detach().requires_grad_()
        weights, opacity, rgb, depth = function(leaves[0], deltas, leaves[1], distances)
        return torch.autograd.grad(rgb.sum() + opacity.sum() + depth.sum() + weights.square().sum(), leaves)


def _trace_step(options: Options, count: int) -> Iterator[Comparison]:
    """With the compaction of the rays that go on."""
    rand = _rand(options)
    origins, directions = rand(count, 3), torch.nn.functional.normalize(rand(count, 3) - 0.5, dim=-1)
    far, values = torch.full((count,), 3.0, device=options.device), rand(count) - 0.2
    alive = torch.arange(count, dtype=torch.int32, device=options.device)
    number = torch.tensor([count], dtype=torch.int32, device=options.device)
    state, status = ops.start_march(torch.zeros_like(far), far)
    long = alive.long()

    def ours() -> Any:
        own = state.clone(), status.clone()
        return ops.trace_step(values, alive, number, origins, directions, far, *own, ops.MarchRules(0.0))

    yield _comparison(
        {"op": "trace_step", "rays": count},
        {
            "sdfgan": ours,
            "torch": lambda: baselines.trace_step(values, long, origins, directions, far, state.clone(), 0.0),
        },
    )


def _layer_step(options: Options, count: int) -> Iterator[Comparison]:
    """The second evaluation of brackets, of which one end is known."""
    rand = _rand(options)
    origins, directions = rand(count, 3), torch.nn.functional.normalize(rand(count, 3) - 0.5, dim=-1)
    guess = 2 + rand(count)
    search = ops.start_layers(guess, rand(count), torch.full_like(guess, torch.nan), 0.1 + rand(count))
    alive = torch.arange(count, dtype=torch.int32, device=options.device)
    number = torch.full((1,), count, dtype=torch.int32, device=options.device)
    made = (alive, number, origins, directions)
    ops.layer_step(rand(count) - 0.2, rand(count, 3) - 0.5, *made, search)
    answer = rand(count) - 0.2, rand(count, 3) - 0.5

    def run(function: Callable[..., Any]) -> Any:
        return function(*answer, *made, ops.LayerSearch(*(part.clone() for part in search)))

    yield _comparison(
        {"op": "layer_step", "layers": count},
        {"sdfgan": partial(run, ops.layer_step), "torch": partial(run, reference.layer_step)},
    )


def _layer_edges(options: Options, count: int) -> Iterator[Comparison]:
    """Of two or three layers in most pixels; most hits look for another's edge."""
    given = random_layers(4, int(math.sqrt(count / 8)), dtype=torch.float32, device=options.device)
    yield _comparison(
        {"op": "layer_edges", "layers": len(given["pixel"])},
        {
            "sdfgan": partial(ops.layer_edges, **given, all_hits=False),
            "torch": partial(reference.layer_edges, **given, all_hits=False),
        },
    )


def _generate_rays(options: Options, count: int) -> Iterator[Comparison]:
    camera = cameras.orbit_camera(options.axes(4)).contiguous()
    side = int(math.sqrt(count / 4))
    pixels = torch.arange(4 * side * side, device=options.device)
    yield _comparison(
        {"op": "generate_rays", "rays": len(pixels)},
        {
            "sdfgan": lambda: ops.generate_rays(camera, pixels, side, side, 0.4),
            "torch": lambda: reference.generate_rays(camera, pixels, side, side, 0.4),
        },
    )
