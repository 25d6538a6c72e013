"""Differentiable rendering beside its literature: the gradient of an image loss, its cost, and what it reconstructs.

    python benchmarks/peers.py gradients cost
    python benchmarks/peers.py gradients --quick
    python benchmarks/peers.py reconstruct --mesh spot.obj --seconds 60 --json benchmarks/results/peers.jsonl
    python benchmarks/peers.py reconstruct --mesh spot.obj --views 50 --resolution 256 --cells 64 --images .
    python benchmarks/peers.py --figure peers.png --json benchmarks/results/peers.jsonl     # draws what was recorded

Tables: gradients (bias and standard deviation of d loss / d geometry against central differences of many hard rays per
pixel, and of the silhouette's area), cost (time and memory of an image with its gradient), reconstruct (a mesh from
images of it: Chamfer distance against CPU time, for a grid of distances and the same optimiser; `exact distances` is
what the grid itself can do).

The methods: `edge_gradients.py`, Mitsuba's `sdfgrid` (`mitsuba_grid.py`), and this package's `render`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

import mitsuba_grid
from edge_gradients import Estimator, GridSDF, View, grid_points, relaxed_boundary, reparameterised, volume
from gradients import _table as table_of
from measure import environment
from memory import peak_of
from reconstruct import FLOOR, QUICK, Setup, draw, floor, reconstruct
from scenes import Parameters, Scene, blurred_noise, differences, filtered, scenes, truth
from sdfgan import raycast
from sdfgan.errors import UserError
from sdfgan.fields.base import Field

RESOLUTION = 64
TARGETS = 4
_FINER = 4  # pixels of the true pictures, along a side of a pixel
_CELLS = 32
_WARM_UP = 16
_MOVING = ("size", "translation", "second", "rotation", "blend", "camera")
_GRID_LIGHT = raycast.Lighting(ambient=0.3, headlight=0.7, wrap=0.0)
Record = dict[str, Any]


class Method(NamedTuple):
    """A way to make an image with a gradient."""

    estimate: Estimator
    side: int = 1  # rays per pixel: its square
    tent: bool = False  # its filter: a tent two pixels wide, else a box
    random: bool = True
    grids_only: bool = False


def ours(view: View, side: int, random: torch.Generator, edge: str = "exact") -> Tensor:
    """[4, R, R] by `raycast.render`."""
    return raycast.render(
        sdf=view.field, axes=view.axes, light=view.light, resolution=view.resolution, edge=edge  # type: ignore[arg-type]
    ).rgba[0]  # fmt: skip


def mitsuba(view: View, side: int, random: torch.Generator) -> Tensor:
    """[4, R, R] by Mitsuba's `sdfgrid`: grey, and no alpha."""
    assert isinstance(view.field, GridSDF)
    seed = int(torch.randint(2**20, (1,), generator=random))
    grey = mitsuba_grid.image(view.field.values, view.axes, view.resolution, side**2, seed)
    return torch.stack([grey, grey, grey, torch.zeros_like(grey)])


METHODS: dict[str, Method] = {
    "exact": Method(ours, random=False),
    "dfr": Method(partial(ours, edge="dfr"), random=False),
    "band .01": Method(partial(relaxed_boundary, width=0.01), 4),
    "band .0025": Method(partial(relaxed_boundary, width=0.0025), 4),
    "reparameterised": Method(reparameterised, 4, tent=True),
    "volume .03": Method(partial(volume, width=0.03)),
    "volume .01": Method(partial(volume, width=0.01)),
    "volume .003": Method(partial(volume, width=0.003)),
    "mitsuba": Method(mitsuba, 4, grids_only=True),
}


class GridScene(Scene):
    """The shape as distances on a grid, grey, with a light that Mitsuba has too."""

    def field(self, p: Parameters) -> Field:
        points = grid_points(_CELLS, next(iter(p.values())).dtype)
        return GridSDF(self.shape(p).sdf(points).view(_CELLS + 1, _CELLS + 1, _CELLS + 1))

    def axes(self, p: Parameters) -> Tensor:
        return super().axes({"camera": torch.tensor((-0.5, 2.2)).to(next(iter(p.values())))})

    def light(self, p: Parameters) -> raycast.Lighting:
        return _GRID_LIGHT


def chosen_scenes(quick: bool) -> list[Scene]:
    """Those of `scenes`, and one on a grid."""
    own = {scene.name: scene for scene in scenes(1)}
    kept = ("sphere",) if quick else ("sphere", "two spheres", "rounded box", "box")
    on_grids = []
    for name in ("sphere",) if quick else ("rounded box",):
        scene = own[name]
        p = {key: value for key, value in scene.parameters.items() if key in _MOVING and key != "camera"}
        on_grids.append(GridScene(f"{name} on a grid", False, p, scene.shape))
    return [*(own[name] for name in kept), *on_grids]


def view_of(scene: Scene, dtype: torch.dtype, resolution: int) -> tuple[View, list[Tensor]]:
    """A view, and the parameters that its graph starts from."""
    p = {name: value.to(dtype).requires_grad_() for name, value in scene.parameters.items()}
    still = scene.field({name: value.detach() for name, value in p.items()})
    return View(scene.field(p), still, scene.axes(p), scene.light(p), resolution), list(p.values())


def gradient_table(quick: bool, methods: dict[str, Method], names: list[str] | None) -> Iterator[Record]:
    """Bias and deviation of the gradient by geometry and camera; of what is one image of a scene, by all methods."""
    resolution, rays, seeds = (16, 2, 3) if quick else (RESOLUTION, 4, 6)
    for scene in chosen_scenes(quick):
        if names is not None and scene.name not in names:
            continue

        def picture(q: Parameters, scene: Scene = scene) -> Tensor:
            return truth(scene.field(q), None, scene.axes(q), scene.light(q), _FINER * resolution, rays)[:4]

        p = scene.parameters
        true_fine, jacobian_fine = picture(p), differences(picture, p)
        for name, method in methods.items():
            if method.grids_only and not isinstance(scene, GridScene):
                continue
            true, jacobian = (filtered(fine, _FINER, method.tent) for fine in (true_fine, jacobian_fine))
            runs = seeds if method.random else 1
            yield {"table": "gradients", "scene": scene.name, "method": name, "rays": method.side**2, "runs": runs,
                   **compare(scene, method, resolution, runs, true, jacobian)}  # fmt: skip


def compare(scene: Scene, method: Method, resolution: int, runs: int, true: Tensor, jacobian: Tensor) -> Record:
    """Numbers of one method: the loss is the mean square over colours and alpha (grids: over grey alone).

    The slope of the loss is taken from one image and pulled through the next, so that noise of one image cannot meet
    itself in the product.
    """
    channels = slice(0, 1) if isinstance(scene, GridScene) else slice(0, 4)
    moves = torch.tensor([name in _MOVING for name, value in scene.parameters.items() for _ in range(value.numel())])
    targets = blurred_noise(TARGETS, 4, resolution)
    wanted = torch.stack([(jacobian * 2 * (true - target))[:, channels].flatten(1).sum(1) for target in targets])
    images, found, seconds = [], [], []
    slopes_of: Tensor | None = None
    for run in range(-1 if method.random else 0, runs):
        begin = time.perf_counter()
        view, leaves = view_of(scene, torch.float32, resolution)
        image = method.estimate(view, method.side, torch.Generator().manual_seed(run + 1))
        kept = image.detach().double()
        if slopes_of is None and method.random:
            slopes_of = kept  # the first image gives no more than a slope
            continue
        gradients = []
        for target in targets:
            slope = torch.zeros_like(kept)
            slope[channels] = 2 * ((kept if slopes_of is None else slopes_of) - target)[channels]
            parts = torch.autograd.grad(
                image, leaves, slope.float(), retain_graph=True, allow_unused=True, materialize_grads=True
            )
            gradients.append(torch.cat([part.double().flatten() for part in parts]))
        seconds.append(time.perf_counter() - begin)
        images.append(kept)
        found.append(torch.stack(gradients))
        slopes_of = kept if method.random else None
    gradients, wanted = torch.stack(found)[:, :, moves], wanted[:, moves]  # [runs, targets, P]
    mean = gradients.mean(0)
    variance = gradients.var(0).sum(-1) if runs > 1 else torch.zeros(TARGETS)
    size = wanted.square().sum(-1).mean().sqrt()
    bias = ((mean - wanted).square().sum(-1) - variance / runs).mean().clamp(min=0).sqrt() / size
    lengths = gradients.norm(dim=-1), wanted.norm(dim=-1)
    record = {
        "bias": bias.item(),
        "deviation": (variance.mean().sqrt() / size).item(),
        "cosine": torch.cosine_similarity(gradients, wanted[None].expand_as(gradients), dim=-1).mean().item(),
        "norm": (lengths[0] / lengths[1]).mean().item(),
        "rmse": torch.stack([(image - true)[channels].square().mean().sqrt() for image in images]).mean().item(),
    }
    if not isinstance(scene, GridScene):
        record["area_percent"] = 100 * (torch.stack([image[3].sum() for image in images]).mean() / true[3].sum() - 1)
        record["area_percent"] = record["area_percent"].item()
    return record


def cost_table(quick: bool, methods: dict[str, Method]) -> Iterator[Record]:
    """Each method in a process of its own: the time and the memory of an image with its gradient."""
    resolution = 16 if quick else RESOLUTION
    for name in methods:
        command = [sys.executable, __file__, "--cost-of", name, str(resolution), str(torch.get_num_threads())]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise UserError(f"the process that measures {name!r} failed: {done.stderr.strip().splitlines()[-1]}")
        yield {"table": "cost", "scene": "rounded box on a grid", "method": name, "rays": methods[name].side ** 2,
               "resolution": resolution, **json.loads(done.stdout.splitlines()[-1])}  # fmt: skip


def cost_of(method: Method, resolution: int) -> Record:
    """Of a rounded box on a grid, by all of its values; memory beyond that of a picture of 16 x 16."""
    seconds: list[float] = []  # of this process: a busy machine costs no more

    def step(side: int) -> None:
        scene_view, _ = view_of(chosen_scenes(False)[-1], torch.float32, side)
        assert isinstance(scene_view.field, GridSDF)
        values = scene_view.field.values.detach().requires_grad_()
        view = View(GridSDF(values), scene_view.still, scene_view.axes.detach(), scene_view.light, side)
        begin = time.process_time()
        image = method.estimate(view, method.side, torch.Generator().manual_seed(len(seconds)))
        image[0].square().sum().backward()
        seconds.append(time.process_time() - begin)

    step(_WARM_UP)
    peak = peak_of(lambda: step(resolution))
    for _ in range(3):
        step(resolution)
    return {"seconds": statistics.median(seconds[2:]), "megabytes": peak / 2**20}


def reconstruct_table(
    methods: dict[str, Method], meshes: list[Path], seconds: float, setup: Setup, images: Path | None
) -> Iterator[Record]:
    """Each mesh by each method, see `reconstruct.reconstruct`.

    A volume's surface narrows as it goes, and a step takes some 64^2 of an image's pixels, spread over it: a ray costs
    as much as a hundred others.
    """
    if not meshes:
        raise UserError("reconstruct needs at least one --mesh FILE")
    ways: dict[str, Callable[[float], Method]] = {
        name: (lambda _, method=method: method) for name, method in methods.items() if not name.startswith("volume")
    }
    if any(name.startswith("volume") for name in methods):
        ways["volume .05 to .005"] = lambda done: Method(partial(volume, width=0.05 * 0.1**done), 1)
    side = math.isqrt(setup.rays)

    def record(mesh: Path, name: str, curve: list[Record]) -> Record:
        end = {key: curve[-1][key] for key in ("steps", "chamfer_percent", "surface_percent")}
        return {"table": "reconstruct", "scene": mesh.stem, "method": name, "seconds": seconds, **end,
                **setup._asdict(), "curve": curve}  # fmt: skip

    for mesh in meshes:
        yield record(mesh, FLOOR, floor(mesh, setup))
        for name, way in ways.items():

            def estimate(view: View, done: float, random: torch.Generator, way: Any = way) -> Tensor:
                method = way(done)
                return method.estimate(view, min(method.side, side), random)

            curve = reconstruct(
                mesh, estimate, seconds, setup, tent=way(0.0).tent,
                sparse=name.startswith("volume"),
                image=images / f"{mesh.stem}-{name.replace(' ', '-')}.png" if images else None,
            )  # fmt: skip
            yield record(mesh, name, curve)


TABLES = ("gradients", "cost", "reconstruct")
SETTINGS = {
    "--views": "cameras around the mesh",
    "--resolution": "pixels along a side of an image",
    "--cells": "of the grid, along a side",
    "--batch": "views per step",
    "--rays": "per pixel, 1, 4 or 16, of methods that take random ones (a volume: 1)",
    "--coarse": "share of the time that first goes to a quarter of --resolution and half of --cells",
}


def setup_of(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> Setup:
    """What reconstruct does; errors end the program."""
    given = {name: getattr(arguments, name) for name in Setup._fields if getattr(arguments, name) is not None}
    setup = (QUICK if arguments.quick else Setup())._replace(**given)
    for name, least in {"views": 1, "resolution": 8, "cells": 4, "batch": 1}.items():
        if getattr(setup, name) < least:
            parser.error(f"--{name} must be at least {least}, got {getattr(setup, name)}")
    if setup.rays not in (1, 4, 16):
        parser.error(f"--rays must be 1, 4 or 16, got {setup.rays}")
    if setup.resolution > RESOLUTION and setup.resolution % RESOLUTION:
        parser.error(f"--resolution must be at most {RESOLUTION} or a multiple of it, got {setup.resolution}")
    if not 0 <= setup.coarse < 1:
        parser.error(f"--coarse must be in [0, 1), got {setup.coarse}")
    if setup.coarse and (setup.resolution % 4 or setup.cells % 2):
        parser.error("--coarse needs a --resolution that 4 divides and an even number of --cells")
    if arguments.images and not arguments.images.is_dir():
        parser.error(f"--images {arguments.images}: there is no such folder")
    return setup


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="*", metavar="TABLE", help=f"{', '.join(TABLES)}")
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help=f"of {', '.join(METHODS)} (default: all)")
    parser.add_argument("--scenes", nargs="+", metavar="SCENE", help="of gradients (default: all)")
    parser.add_argument("--mesh", nargs="+", type=Path, default=[], help="to be reconstructed")
    parser.add_argument("--seconds", type=float, default=60.0, help="CPU time of each reconstruction")
    group = parser.add_argument_group("what reconstruct works on")
    for flag, about in SETTINGS.items():
        default = Setup._field_defaults[flag[2:]]
        group.add_argument(flag, type=type(default), metavar="N", help=f"{about} (default: {default})")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="for what reconstruct ends with, above the truth")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="append records to FILE")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the records of --json")
    parser.add_argument("--cost-of", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cost_of:
        name, resolution, threads = arguments.cost_of
        torch.set_num_threads(int(threads))
        print(json.dumps(cost_of(METHODS[name], int(resolution))))
        return 0
    for name in arguments.table:
        if name not in TABLES:
            parser.error(f"TABLE must be {', '.join(TABLES)}, got {name}")
    for name in arguments.methods or ():
        if name not in METHODS:
            parser.error(f"--methods must be of {', '.join(METHODS)}, got {name}")
    known = [scene.name for scene in chosen_scenes(arguments.quick)]
    for name in arguments.scenes or ():
        if name not in known:
            parser.error(f"--scenes must be of {', '.join(known)}, got {name}")
    if arguments.threads < 1 or not arguments.seconds > 0:
        parser.error("--threads and --seconds must be positive")
    setup = setup_of(parser, arguments)
    if arguments.json and not arguments.json.resolve().parent.is_dir():
        parser.error(f"--json {arguments.json}: its folder does not exist")
    if arguments.figure and not (arguments.json and (arguments.json.exists() or arguments.table)):
        parser.error("--figure draws the records of --json FILE, which must exist")
    torch.set_num_threads(arguments.threads)
    console = Console(width=None if sys.stdout.isatty() else 170)
    methods = {name: METHODS[name] for name in arguments.methods or METHODS}
    if arguments.table and "mitsuba" in methods and (reason := mitsuba_grid.why_not()):
        print(reason)
        del methods["mitsuba"]
    shared = environment()
    run: dict[str, Callable[[], Iterator[Record]]] = {
        "gradients": lambda: gradient_table(arguments.quick, methods, arguments.scenes),
        "cost": lambda: cost_table(arguments.quick, methods),
        "reconstruct": lambda: reconstruct_table(methods, arguments.mesh, arguments.seconds, setup, arguments.images),
    }
    for name in arguments.table:
        records = []
        with console.status(name) as status:
            for record in run[name]():
                status.update(f"{name}: {record['scene']}, {record['method']}")
                records.append(record)
                if arguments.json:
                    with arguments.json.open("a") as file:
                        file.write(json.dumps({**record, **shared}) + "\n")
        shown = [{key: record.get(key, "") for key in records[0] if key != "curve"} for record in records]
        console.print(table_of(name, shown))
    console.print(f"{shared['device']}, {shared['threads']} threads, commit {shared['commit']}", highlight=False)
    if arguments.figure:
        print(draw([json.loads(line) for line in arguments.json.read_text().splitlines()], arguments.figure))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        print(f"peers.py: {error}", file=sys.stderr)
        sys.exit(2)
