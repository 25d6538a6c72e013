"""Each CUDA kernel of the library once, against the CPU, with the error printed at once.

    python benchmarks/gpu_smoke.py

A check that fails costs only itself: an error after which CUDA answers nothing more, a crash or a hang ends the
process, and a new one goes on behind it.
"""

from __future__ import annotations

import argparse
import faulthandler
import math
import multiprocessing
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from gpu_records import keep, parser
from networks import OPERANDS, RandomNetwork, some_grads, some_points, worst_error
from random_layers import random_layers
from sdfgan import fields, ops, raycast
from sdfgan.cameras import DEFAULT_FOV, rotate_axes
from sdfgan.raycast.levels import march_levels
from sdfgan.raycast.sphere_trace import march
from sdfgan.selftest import CASES, ROUNDED, difference, some_cameras
from torus import torus

Errors = dict[str, tuple[float, float]]  # of a check: what was compared, how far it is off, and how far it may be
Check = Callable[[str], Errors]  # of a device
CHECKS: dict[str, Check] = {}  # in the order of the file

_SECONDS = 15.0  # that a check may take
_SPOILED = 75  # exit status of a process whose CUDA answers nothing more
_LAYERS = (3, 1, 1)


def main() -> int:
    """All checks; 1 if one has failed."""
    arguments = parser(__doc__).parse_args()
    context = multiprocessing.get_context("fork")  # this process itself must not touch CUDA
    begun, failures = context.Value("i", -1), context.Value("i", 0)
    while begun.value + 1 < len(CHECKS):
        process = context.Process(target=_run, args=(arguments, begun.value + 1, begun, failures))
        process.start()
        process.join()
        if process.exitcode not in (0, _SPOILED):
            name = list(CHECKS)[begun.value]
            failures.value += 1
            # Not as of the GPU: to ask for its name would spoil CUDA for all processes that are forked from here.
            here = argparse.Namespace(device="cpu", json=arguments.json)
            _tell(here, name, f"the process ended with {process.exitcode}")
    print(f"{len(CHECKS) - failures.value} of {len(CHECKS)} checks passed")
    return 1 if failures.value else 0


def _run(arguments: argparse.Namespace, first: int, begun: Any, failures: Any) -> None:
    """The checks from `first` on, in a process of its own."""
    for number in range(first, len(CHECKS)):
        name = list(CHECKS)[number]
        begun.value = number
        faulthandler.dump_traceback_later(_SECONDS, exit=True)
        spoiled = False
        try:
            torch.manual_seed(0)
            errors = CHECKS[name](arguments.device)
            _synchronise(arguments.device)
            bad = [what for what, (error, limit) in errors.items() if not error <= limit]
            shown = ", ".join(f"{what} {error:.2g} (<= {limit:.2g})" for what, (error, limit) in errors.items())
            facts = {what: value for what, (value, limit) in errors.items() if limit == math.inf}
            _tell(arguments, name, f"beyond the limit: {', '.join(bad)}; {shown}" if bad else "", shown, **facts)
            failures.value += bool(bad)
        except Exception as error:
            failures.value += 1
            _tell(arguments, name, f"{type(error).__name__}: {error}")
            try:
                _synchronise(arguments.device)
            except RuntimeError:
                spoiled = True
        if spoiled:
            sys.exit(_SPOILED)
    faulthandler.cancel_dump_traceback_later()


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _tell(arguments: argparse.Namespace, name: str, failure: str, shown: str = "", **facts: float) -> None:
    failure = " ".join(failure.split())[:400]
    print(f"{name:44s} {'FAILED: ' + failure if failure else 'ok  ' + shown}", flush=True)
    said = {"failure": failure} if failure else {"said": shown}
    keep(arguments, "smoke", "", {"check": name}, passed=not failure, **facts, **said)


def same(name: str, limit: float = ROUNDED) -> Callable[[Callable[[str], Sequence[Tensor]]], None]:
    """A check that the tensors that a function makes on a device are those that it makes on the CPU."""

    def register(function: Callable[[str], Sequence[Tensor]]) -> None:
        def check(device: str) -> Errors:
            torch.manual_seed(0)
            expected = function("cpu")
            torch.manual_seed(0)
            actual = function(device)
            return {"error": (max(difference(a, e) for a, e in zip(actual, expected, strict=True)), limit)}

        CHECKS[name] = check

    return register


for _name, _case in CASES.items():
    same(_name)(partial(_case, ops))


@same("mesh_distance")  # of many more points than the case of this name
def _(device: str) -> Sequence[Tensor]:
    found = ops.mesh_distance(ops.mesh_tree(*torus()).to(device), 2 * torch.rand(20_000, 3).to(device) - 1)
    return [found.distance]  # of several faces that are as near, any may be named


@same("mesh_distance, winding numbers", limit=0.06)  # what is far is expanded: on a CPU eight points agree on that
def _(device: str) -> Sequence[Tensor]:
    points = 2 * torch.rand(20_000, 3).to(device) - 1
    return [ops.mesh_distance(ops.mesh_tree(*torus()).to(device), points).winding]


@same("mesh_distance, closest points", limit=1e-3)
def _(device: str) -> Sequence[Tensor]:
    points = 2 * torch.rand(20_000, 3).to(device) - 1
    found = ops.mesh_distance(ops.mesh_tree(*torus()).to(device), points)
    return [(found.closest - points).norm(dim=1) - found.distance.abs()]


@same("mesh_raycast")
def _(device: str) -> Sequence[Tensor]:
    targets = 2 * torch.rand(20_000, 3) - 1
    origins = 3 * torch.nn.functional.normalize(torch.randn(20_000, 3))
    found = ops.mesh_raycast(ops.mesh_tree(*torus()).to(device), origins.to(device), (targets - origins).to(device))
    return [found.distance.nan_to_num(posinf=9.0), found.barycentric.sum(1)]


@same("march_count, march_samples, march_reached")
def _(device: str) -> Sequence[Tensor]:
    directions = torch.nn.functional.normalize(torch.randn(2000, 3), dim=-1)
    near, jitter, occupied = torch.rand(2000), torch.rand(2000), torch.rand(30**3) < 0.3
    results: list[Tensor] = []
    for dtype, even in ((torch.float32, math.inf), (torch.float64, 0.65)):  # the latter rounds otherwise
        rays = (x.to(device, dtype) for x in (directions / 2, directions, near, near + 3, jitter))
        grid = ops.GridMarch(*rays, occupied.to(device), 30, 0.01, even)
        depth, reached = torch.zeros_like(grid.near), torch.zeros(2001, dtype=torch.int64, device=device)
        offsets, following = ops.march_count(grid, 20)
        some = ops.march_samples(grid, offsets, int(offsets[-1]))
        ops.march_reached(4 * some.distances, some.deltas, offsets, depth, reached, following, 1.0)
        results += [offsets, *some, depth, reached, following, ops.march_count(grid, 1000, following)[0]]
    return results


def _same_rays(found: Sequence[Tensor], expected: Sequence[Tensor], most_different: float, depth: float) -> Errors:
    """Of status, distance and nearest: hits alike, and where both have hit, at the same distance."""
    status, distance = (x.cpu() for x in found[:2])
    hits = [x == int(ops.RayStatus.HIT) for x in (status, expected[0])]
    union = (hits[0] | hits[1]).sum().clamp(min=1)
    off = (distance - expected[1])[hits[0] & hits[1]].abs()
    return {
        "1 - IoU of hits": (1 - ((hits[0] & hits[1]).sum() / union).item(), most_different),
        "depth, 99 %": (off.quantile(0.99).item() if len(off) else math.inf, depth),
    }


def march_of_a_sphere(device: str, layers: int = 0) -> list[Tensor]:
    """With `start_level`, and `trace_step` for each evaluation."""
    level = march_levels(48, DEFAULT_FOV, threshold=1e-4, steps=100)[-1]
    rays = ops.start_level(some_cameras(2).to(device), level, DEFAULT_FOV)
    met = ops.LayerState.none(layers, rays.start) if layers else None
    march(fields.Sphere(0.6), None, rays, level, lambda ray: ray.long() * 0, met)
    return [rays.status, rays.state[0], rays.state[1], *([met.complete] if met else [])]


def _check_march(device: str, layers: int) -> Errors:
    actual, expected = march_of_a_sphere(device, layers), march_of_a_sphere("cpu", layers)
    errors = _same_rays(actual, expected, 1e-3, 1e-5)
    return errors | ({"layers": (difference(actual[3], expected[3]), 1e-3)} if layers else {})


CHECKS["start_level, trace_step"] = partial(_check_march, layers=0)
CHECKS["start_level, trace_step, 3 layers"] = partial(_check_march, layers=3)


def layers_of_a_sphere(device: str) -> list[Tensor]:
    """Its rim, found by `layer_step` for each evaluation: nearest value, entry, share and normal."""
    heights = torch.linspace(0.45, 0.515, 1000)
    origins = torch.stack([heights, torch.zeros(1000), torch.full((1000,), 3.0)], 1).to(device)
    directions = torch.tensor([0.0, 0.0, -1.0]).repeat(1000, 1).to(device)
    guess = 3 + 0.1 * torch.linspace(0, 40, 1000).sin().to(device)
    reach, unseen, pixel_size = (torch.full_like(guess, number) for number in (0.2, math.nan, 0.02))
    search = ops.start_layers(guess, reach, unseen, pixel_size)
    alive = torch.arange(1000, dtype=torch.int32, device=device)
    count, points = torch.full((1,), 1000, dtype=torch.int32, device=device), origins + guess[:, None] * directions
    for _ in range(ops.LAYER_STEPS):
        answer = fields.Sphere(0.5).sdf_and_gradient(points)
        points, alive, count = ops.layer_step(*answer, alive, count, origins, directions, search)
    return [search.nearest, search.t, search.normal, search.stage.float()]


def _check_layers(device: str) -> Errors:
    """To a fiftieth of a pixel, of .02: rounding may turn whether a ray is evaluated once more."""
    actual, expected = layers_of_a_sphere(device), layers_of_a_sphere("cpu")
    limits = {"nearest": 4e-4, "t": 2e-2, "normal": 2e-2, "stage": 0.0}
    return {
        name: (difference(a, e), limit) for (name, limit), a, e in zip(limits.items(), actual, expected, strict=True)
    }


CHECKS["layer_step"] = _check_layers


def _check_edges(device: str) -> Errors:
    """Rounding may turn which of two misses a hit takes its edge from."""
    errors = {}
    for name, all_hits in (("thin", False), ("all", True)):
        expected, found = (
            ops.layer_edges(**random_layers(2, 200, dtype=torch.float32, device=place), all_hits=all_hits)
            for place in ("cpu", device)
        )
        same = found.source.cpu() == expected.source
        errors[f"{name}, sources"] = 1 - float(same.double().mean()), 1e-3
        for part in ("nearest", "area"):
            a, e = (getattr(edges, part).cpu()[same] for edges in (found, expected))
            errors[f"{name}, {part}"] = difference(a, e), 1e-4
    return errors


CHECKS["layer_edges"] = _check_edges


def _network(net: RandomNetwork, precision: str, device: str) -> ops.FilmSirenNetwork:
    return net.on_cuda(precision) if device == "cuda" else net.on_cpu()


def _check_values(device: str, width: int, precision: str, with_gradient: bool) -> Errors:
    net = RandomNetwork(4, width, _LAYERS)
    points, image = some_points([5, 0, 2000, 37])
    network, given = _network(net, precision, device), (points.to(device), image.to(device))
    exact = net.exact(points, image)
    limit = (1e-6 if precision == "fp32" else 5e-4) * 1.5 ** sum(_LAYERS)
    if not with_gradient:
        return {"sdf": (difference(ops.film_siren(*given, network), exact[0]), limit)}
    found = ops.film_siren_sample(*given, network)
    names = ("sdf", "gradient", "texture")
    return {name: (difference(a, e), limit) for name, a, e in zip(names, found, exact, strict=True)}


def _check_gradients(device: str, width: int, precision: str) -> Errors:
    """Of points, weights and FiLM, against float64 with rounded operands; of the same call again, to the last bit."""
    net = RandomNetwork(4, width, _LAYERS)
    points, image = (tensor.to(device) for tensor in some_points([5, 0, 2000, 37]))
    grads = [grad.to(device) for grad in some_grads(len(points))]
    exact = net.exact_gradients(points, image, grads, OPERANDS[precision])
    if device != "cuda":
        return {}
    found = net.gradients_on_cuda(points, image, grads, precision)
    names = ("points", "first", "matrices", "sdf head", "texture head", "constants", "scale", "shift")
    limit = 1e-5 if precision == "fp32" else 2e-3
    errors = {name: (worst_error([a], [e]), limit) for name, a, e in zip(names, found, exact, strict=True)}
    again = net.gradients_on_cuda(points, image, grads, precision)
    return errors | {"again": (max(difference(a, e.cpu()) for a, e in zip(again, found, strict=True)), 0.0)}


def _check_trace(
    device: str, width: int, precision: str, max_layers: int = 0, mirror: ops.Mirror | None = None
) -> Errors:
    """Against the march of a CPU, of the same levels."""
    net, cameras = RandomNetwork(3, width, _LAYERS), some_cameras(3)
    plan = march_levels(64, DEFAULT_FOV, threshold=1e-4, steps=100, native="cuda", lipschitz=1.2)
    jitter = 0.01 * torch.rand(3, 64, 64) if max_layers else None
    on_cpu = net.on_cpu()._replace(mirror=mirror)
    expected = ops.film_siren_trace(cameras, plan, on_cpu, DEFAULT_FOV, jitter, max_layers)
    moved = None if jitter is None else jitter.to(device)
    network = _network(net, precision, device)._replace(mirror=mirror)
    found = ops.film_siren_trace(cameras.to(device), plan, network, DEFAULT_FOV, moved, max_layers)
    errors = _same_rays(found, expected, *((1e-3, 1e-5) if precision == "fp32" else (2e-3, 2e-3)))
    queries = abs(int(found[3][0]) / int(expected[3][0]) - 1)
    errors["queries"] = queries, 1e-3 if precision == "fp32" else 2e-2
    if max_layers:
        errors["layers"] = difference(found[4].complete, expected[4].complete), 2e-3
    return errors


def _check_captured(device: str, width: int, precision: str) -> Errors:
    """A captured trace of 16 x 128^2 is that of a plain call; printed is its time by the GPU's clock."""
    if device != "cuda":
        return {}
    network, cameras = RandomNetwork(16, width, _LAYERS).on_cuda(precision), some_cameras(16).cuda()
    plan = march_levels(128, DEFAULT_FOV, threshold=1e-4, steps=100, native="cuda", lipschitz=1.2)
    expected = ops.film_siren_trace(cameras, plan, network, DEFAULT_FOV)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = ops.film_siren_trace(cameras, plan, network, DEFAULT_FOV)
    times = []
    for _ in range(20):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    errors = [difference(a, e.cpu()) for a, e in zip(found[:2], expected[:2], strict=True)]
    return {"error": (max(errors), 0.0), "ms": (statistics.median(times), math.inf)}


for _width in ops.CUDA_WIDTHS:
    for _precision in ("fp32", "fp16"):
        _name, _settings = f"{_precision}, width {_width}", {"width": _width, "precision": _precision}
        CHECKS[f"film_siren, {_name}"] = partial(_check_values, **_settings, with_gradient=False)
        CHECKS[f"film_siren_sample, {_name}"] = partial(_check_values, **_settings, with_gradient=True)
        CHECKS[f"film_siren_backward, {_name}"] = partial(_check_gradients, **_settings)
        CHECKS[f"film_siren_trace, {_name}"] = partial(_check_trace, **_settings)
        CHECKS[f"film_siren_trace, 4 layers, {_name}"] = partial(_check_trace, **_settings, max_layers=4)
        _mirror = ops.Mirror(0.6, -0.8, 0.02)
        CHECKS[f"film_siren_trace, mirrored, {_name}"] = partial(_check_trace, **_settings, mirror=_mirror)
for _width in ops.CUDA_WIDTHS:
    for _precision in ("fp32", "fp16"):
        _settings = {"width": _width, "precision": _precision}
        CHECKS[f"captured trace, {_precision}, width {_width}"] = partial(_check_captured, **_settings)


def _check_render(device: str, edge: Literal["exact", "neighbour", "dfr"]) -> Errors:
    """A picture and its gradients."""
    torch.manual_seed(0)
    field, latents = fields.FilmSirenSDF(width=64, latent_size=8), torch.randn(2, 8)
    axes = rotate_axes((torch.tensor([-0.3, 0.5]), torch.tensor([0.0, 2.0])))
    pictures, slopes = [], []
    for where in ("cpu", device):
        given = latents.detach().to(where).requires_grad_()
        rendering = raycast.render(
            sdf=field.to(where), axes=axes.to(where), latents=given, resolution=64, edge=edge, precision="fp32"
        )
        rendering.rgba.square().mean().backward()
        assert given.grad is not None
        pictures.append(rendering.rgba.detach().cpu())
        slopes.append(given.grad.cpu())
    apart = ((slopes[1] - slopes[0]).norm() / slopes[0].norm()).item()
    return {"mean of pixels": ((pictures[1] - pictures[0]).abs().mean().item(), 1e-4), "gradient": (apart, 2e-2)}


for _edge in ("exact", "neighbour", "dfr"):
    CHECKS[f"render, edge {_edge}"] = partial(_check_render, edge=_edge)


if __name__ == "__main__":
    sys.exit(main())
