"""Prove pictures and their gradients: against finite differences of a truth made of many hard rays per pixel.

    python benchmarks/gradients.py               every table; about ten minutes on two cores
    python benchmarks/gradients.py area --quick
    python benchmarks/gradients.py scenes --json benchmarks/results/gradients.jsonl

Tables: scenes (analytic scenes: cosine and ratio of norms of the gradient of an image loss by shape, pose, colour,
camera and light), network (a FilmSirenSDF by its weights and latents), area (silhouettes of spheres, boxes and tori),
queries (evaluations of the field that the edges cost). All run the real march, in float32 unless --float64.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

from measure import environment
from scenes import Parameters, Scene, blurred_noise, box_area, differences, scenes, sphere_area, truth
from sdfgan import cameras, fields, ops, raycast
from sdfgan.errors import UserError
from sdfgan.raycast.layers import trace_layers
from sdfgan.raycast.multiscale import MarchOptions, Tracer

RESOLUTION = 64
TARGETS = 8
SCHEMES: dict[str, dict[str, Any]] = {
    "exact": {},
    "layers=1": {"layers": 1},
    "neighbour": {"edge": "neighbour"},
    "dfr": {"edge": "dfr"},
}
_BOX, _BOX_AXIS, _BOX_ANGLE = (0.8, 0.6, 0.9), (1.0, 2.0, 3.0), 0.7
Record = dict[str, Any]


def scene_table(quick: bool, dtype: torch.dtype) -> Iterator[Record]:
    """Cosine and norm ratio of d loss / d parameters, for every scene, view and scheme."""
    rays, resolution = (8, 32) if quick else (16, RESOLUTION)
    for view in (0,) if quick else (1, 0):
        for scene in scenes(view):
            for record in compare_scene(scene, resolution, rays, dtype, SCHEMES):
                yield {"view": view, **record}


def compare_scene(
    scene: Scene, resolution: int, rays: int, dtype: torch.dtype, schemes: dict[str, dict[str, Any]]
) -> Iterator[Record]:
    """One scene, with each scheme's arguments of `render`, against rays^2 hard rays per pixel."""
    p = scene.parameters

    def picture(q: Parameters) -> Tensor:
        return truth(scene.field(q), None, scene.axes(q), scene.light(q), resolution, rays)

    true_picture, jacobian = picture(p), differences(picture, p)
    for name, arguments in schemes.items():
        ours, gradients = _gradients(scene, resolution, dtype, arguments)
        numbers = _compare(gradients, jacobian, ours, true_picture, p)
        yield {"table": "scenes", "scene": scene.name, "sharp": scene.sharp, "scheme": name, **numbers}


def _gradients(
    scene: Scene, resolution: int, dtype: torch.dtype, arguments: dict[str, Any]
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Our picture [5, R, R], and a function of d loss / d picture that gives d loss / d parameters [P]."""
    p = {name: value.to(dtype).requires_grad_() for name, value in scene.parameters.items()}
    made = raycast.render(
        sdf=scene.field(p), axes=scene.axes(p), light=scene.light(p), resolution=resolution, **arguments
    )
    seen = made.alpha > 0
    height = torch.where(seen, cameras.camera_distance() + 1 - torch.where(seen, made.depth, 0.0), 0.0)
    picture = torch.cat([made.rgb, made.alpha, height * made.alpha], 1)[0]

    def pull(gradient: Tensor) -> Tensor:
        parts = torch.autograd.grad(
            picture, list(p.values()), gradient.to(dtype), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return torch.cat([part.double().flatten() for part in parts])

    return picture.detach().double(), pull


def _compare(
    pull: Callable[[Tensor], Tensor], jacobian: Tensor, ours: Tensor, true: Tensor, p: Parameters
) -> dict[str, Any]:
    """Means over targets of cosine and norm ratio: by colour and alpha, and by depth; and by kind of parameter."""
    kinds = [name for name, value in p.items() for _ in range(value.numel())]
    targets = blurred_noise(TARGETS, 5, ours.shape[-1])
    result: dict[str, Any] = {"alpha_rmse": (ours[3] - true[3]).square().mean().sqrt().item()}
    for what, channels in (("image", slice(0, 4)), ("depth", slice(4, 5))):
        mine, right = [], []
        for target in targets:
            slope_ours, slope_true = torch.zeros_like(ours), torch.zeros_like(true)
            slope_ours[channels] = 2 * (ours - target)[channels]
            slope_true[channels] = 2 * (true - target)[channels]
            mine.append(pull(slope_ours))
            right.append((jacobian * slope_true).flatten(1).sum(1))
        a, b = torch.stack(mine), torch.stack(right)
        result[f"{what}_cosine"] = torch.cosine_similarity(a, b, dim=1).mean().item()
        result[f"{what}_norm"] = (a.norm(dim=1) / b.norm(dim=1)).mean().item()
        if what == "image":
            moves = torch.tensor([kind not in ("colour", "light") for kind in kinds])
            result["geometry_cosine"] = torch.cosine_similarity(a[:, moves], b[:, moves], dim=1).mean().item()
            result["geometry_norm"] = (a[:, moves].norm(dim=1) / b[:, moves].norm(dim=1)).mean().item()
            for kind in dict.fromkeys(kinds):
                own = torch.tensor([k == kind for k in kinds])
                cosine = torch.cosine_similarity(a[:, own].flatten(), b[:, own].flatten(), dim=0).item()
                result.setdefault("by_parameter", {})[kind] = (
                    round(cosine, 4), round((a[:, own].norm() / b[:, own].norm()).item(), 4),
                )  # fmt: skip
    return result


def network_table(quick: bool, dtype: torch.dtype) -> Iterator[Record]:
    """The same for the weights and latents of a FilmSirenSDF, along random directions in each of its tensors."""
    torch.manual_seed(0)
    resolution, rays = (32, 8) if quick else (RESOLUTION, 16)
    field = fields.FilmSirenSDF(width=32, latent_size=8, mapping_width=16)
    with torch.no_grad():
        field.sdf_head.mul_(5)
    latents = torch.randn(1, 8)
    axes = cameras.rotate_axes((torch.tensor([0.3]), torch.tensor([0.4]))).double()
    exact = field.double()
    latents = latents.double()
    names = [name for name, _ in field.named_parameters()]
    random = torch.Generator().manual_seed(2)
    directions = []  # one in each tensor
    for value in (*field.parameters(), latents):
        direction = torch.randn(value.shape, generator=random, dtype=torch.float64)
        directions.append(direction / direction.norm() * value.detach().norm().clamp(min=0.1))

    def true_picture() -> Tensor:
        return truth(exact, exact.condition(latents), axes, raycast.Lighting(), resolution, rays)[:4]

    step = 1e-3
    with torch.no_grad():
        here, rows = true_picture(), []
        for value, direction in zip((*exact.parameters(), latents), directions, strict=True):
            value += step * direction
            above = true_picture()
            value -= 2 * step * direction
            rows.append((above - true_picture()) / (2 * step))
            value += step * direction
    jacobian = torch.stack(rows)
    own = field.to(dtype)
    latents = latents.to(dtype).requires_grad_()
    for name, arguments in SCHEMES.items():
        made = raycast.render(
            sdf=own, axes=axes.to(dtype), latents=latents, resolution=resolution, lipschitz="estimate", **arguments
        )
        cosines, norms = [], []
        for target in blurred_noise(TARGETS, 4, resolution):
            slope = 2 * (made.rgba[0].detach().double() - target)
            parts = torch.autograd.grad(
                made.rgba[0], [*own.parameters(), latents], slope.to(dtype), retain_graph=True,
                allow_unused=True, materialize_grads=True,
            )  # fmt: skip
            a = torch.stack([(g.double() * d).sum() for g, d in zip(parts, directions, strict=True)])
            b = (jacobian * 2 * (here - target)).flatten(1).sum(1)
            cosines.append(torch.cosine_similarity(a, b, dim=0).item())
            norms.append((a.norm() / b.norm()).item())
        yield {"table": "network", "scene": f"FilmSirenSDF, {len(names)} tensors and the latent", "scheme": name,
               "image_cosine": sum(cosines) / TARGETS, "image_norm": sum(norms) / TARGETS,
               "alpha_rmse": (made.alpha[0, 0].double() - here[3]).square().mean().sqrt().item()}  # fmt: skip


def area_table(quick: bool, dtype: torch.dtype) -> Iterator[Record]:
    """Bias of the silhouette's area and of its derivative by size, over views, in per cent."""
    views = 3 if quick else 20
    random = torch.Generator().manual_seed(3)
    elevation, azimuth = 2.4 * (torch.rand(views, generator=random) - 0.5), 6.28 * torch.rand(views, generator=random)
    all_axes = cameras.rotate_axes((elevation.double(), azimuth.double()))
    offsets = 0.1 * torch.randn(views, 3, generator=random, dtype=torch.float64)
    sizes = 0.15 + 0.6 * torch.rand(views, generator=random, dtype=torch.float64)
    shapes = {"sphere": _sphere, "box": _boxes, "torus": _tori}
    for resolution in (RESOLUTION, 2 * RESOLUTION):
        for shape, make in shapes.items():
            true = [
                _true_area(shape, make, size, offset, axes, resolution, 6 if quick else 10)
                for size, offset, axes in zip(sizes, offsets, all_axes, strict=True)
            ]
            for name, arguments in SCHEMES.items():
                errors, slopes = [], []
                for size, offset, axes, (area, slope) in zip(sizes, offsets, all_axes, true, strict=True):
                    own = size.to(dtype).requires_grad_()
                    made = raycast.render(
                        sdf=make(own).translated(offset.to(dtype)), axes=axes[None].to(dtype), resolution=resolution,
                        **arguments,
                    )  # fmt: skip
                    (gradient,) = torch.autograd.grad(made.alpha.sum(), own)
                    errors.append(100 * (made.alpha.double().sum().item() / area - 1))
                    slopes.append(100 * (gradient.item() / slope - 1))
                yield {"table": "area", "scene": shape, "scheme": name, "resolution": resolution, "views": views,
                       "area_mean": sum(errors) / views, "area_worst": max(map(abs, errors)),
                       "slope_mean": sum(slopes) / views, "slope_worst": max(map(abs, slopes))}  # fmt: skip


def _sphere(size: Tensor) -> fields.AnalyticField:
    return fields.Sphere(size)


def _boxes(size: Tensor) -> fields.AnalyticField:
    return fields.Box(size * size.new_tensor(_BOX)).rotated(axis=_BOX_AXIS, angle=_BOX_ANGLE)


def _box_corners(size: float, offset: Tensor) -> Tensor:
    sides = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    corners = size * sides.new_tensor(_BOX) * torch.stack(torch.meshgrid(sides, sides, sides, indexing="ij"), -1)
    return corners @ fields.rotation_matrix(_BOX_AXIS, _BOX_ANGLE).double().T + offset


def _tori(size: Tensor) -> fields.AnalyticField:
    return fields.Torus(0.25 + 0.5 * size, 0.09 + 0.2 * size).rotated(axis=(1.0, 0.3, 0.0), angle=0.6)


def _true_area(
    shape: str, make: Callable[[Tensor], Any], size: Tensor, offset: Tensor, axes: Tensor, resolution: int, rays: int
) -> tuple[float, float]:
    step = 0.01

    def area(value: Tensor) -> float:
        if shape == "sphere":
            return sphere_area(value.item(), offset, axes, resolution)
        if shape == "box":
            return box_area(_box_corners(value.item(), offset), axes, resolution)
        return _covered(make(value).translated(offset), axes, resolution * rays) / rays**2

    return area(size), (area(size + step) - area(size - step)) / (2 * step)


@torch.no_grad()
def _covered(solid: Any, axes: Tensor, resolution: int) -> float:
    """Pixels of a picture of this (high) resolution whose centres' rays meet the solid."""
    samples = raycast.multiscale(axes[None], (resolution,), None, solid, 1e-6, refine=0)
    return samples.hit.sum().item()


@torch.no_grad()
def query_table(quick: bool, dtype: torch.dtype) -> Iterator[Record]:
    """Evaluations per pixel: of our march to the surface, of the same with layers, of plain sphere tracing."""
    from blobs import blobs

    field, latents = blobs(64, quick)
    cases: list[tuple[str, Any, Any, int]] = [
        ("FiLM-SIREN blobs", field.to(dtype), field.to(dtype).condition(latents.to(dtype)), len(latents))
    ]
    cases += [(scene.name, scene.field(scene.parameters), None, 4) for scene in scenes()]
    for name, own, condition, images in cases:
        angles = torch.linspace(-0.4, 0.9, images), torch.linspace(0, 5.9, images)
        axes = cameras.rotate_axes(angles).to(dtype)
        for resolution in (RESOLUTION, 2 * RESOLUTION):
            tracer = Tracer(own, condition, axes, cameras.DEFAULT_FOV, MarchOptions())
            tolerance = 0.05 * 2 / resolution
            plain = tracer.trace(tracer.levels(resolution, tolerance, margin=0.75, inset=0.0))
            level = ops.TraceLevel(resolution, 300, ops.MarchRules(tolerance / 10), tracer.extent)
            sphere = tracer.trace(lambda level=level, **_: [level])
            counted = {"plain": plain, "all": trace_layers(tracer, resolution, 4), "sphere_traced": sphere}
            per_pixel = {k: v.counts[0].item() / (images * resolution**2) for k, v in counted.items()}
            extra = per_pixel["all"] - per_pixel["plain"]
            yield {"table": "queries", "scene": name, "scheme": "exact", "resolution": resolution,
                   **{f"{key}_per_pixel": value for key, value in per_pixel.items()},
                   "extra_percent": 100 * extra / per_pixel["plain"],
                   "extra_percent_of_sphere_tracing": 100 * extra / per_pixel["sphere_traced"]}  # fmt: skip


TABLES = {"scenes": scene_table, "network": network_table, "area": area_table, "queries": query_table}


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="*", metavar="TABLE", help=f"{', '.join(TABLES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    parser.add_argument("--float64", action="store_true", help="our side in double precision")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append records to FILE")
    arguments = parser.parse_args()
    for name in arguments.table:
        if name not in TABLES:
            parser.error(f"TABLE must be {', '.join(TABLES)}, got {name}")
    if arguments.json and not arguments.json.resolve().parent.is_dir():
        parser.error(f"--json {arguments.json}: its folder does not exist")
    shared = environment()
    console = Console(width=None if sys.stdout.isatty() else 170)
    for name in arguments.table or TABLES:
        records = []
        with console.status(name) as status:
            for record in TABLES[name](arguments.quick, torch.float64 if arguments.float64 else torch.float32):
                status.update(f"{name}: {record['scene']}, {record['scheme']}")
                records.append(record)
                if arguments.json:
                    with arguments.json.open("a") as file:
                        file.write(json.dumps({**record, **shared}) + "\n")
        console.print(_table(name, records))
    console.print(f"{shared['device']}, {shared['threads']} threads, commit {shared['commit']}", highlight=False)
    return 0


def _table(title: str, records: list[Record]) -> Table:
    table = Table(title=title, title_justify="left")
    columns = [key for key in records[0] if key not in ("table", "by_parameter", "sharp")]
    for column in columns:
        table.add_column(column.replace("_", " "), justify="left" if column in ("scene", "scheme") else "right")
    for record in records:
        cells = []
        for column in columns:
            value = record[column]
            cells.append(f"{value:.4f}" if isinstance(value, float) and math.isfinite(value) else str(value))
        table.add_row(*cells)
    return table


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"gradients.py: {error}", file=sys.stderr)
        sys.exit(2)
