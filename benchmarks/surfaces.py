"""Surfaces from photographs of meshes: how far the meshes of `train-nerf` are from those that were photographed.

python benchmarks/surfaces.py spot.obj fandisk.obj --models surface fast --picture surfaces.png
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, get_args

import torch
import trimesh
from torch import Tensor

from measure import environment
from sdfgan.cameras import orbit_camera, rotate_axes, to_blender
from sdfgan.cli import main as sdfgan
from sdfgan.images import image_grid, save_image
from sdfgan.meshes import GroundTruth, normalise, read_mesh, render_mesh
from sdfgan.metrics import psnr
from sdfgan.nerf import NerfConfig, load_model, load_surface, train
from sdfgan.nerf.config import Model
from sdfgan.nerf.report import SceneRenderer
from sdfgan.ops import pixel_views
from sdfgan.raycast import Lighting, render
from sdfgan.sdf.evaluation import mesh_metrics

FOV = math.radians(25)
SCENE_SCALE = 2 / 3  # of the cube of half side 1.5: that around the unit ball, in which the meshes lie
SIDES = (200, 400)  # pixels of traced images
ROUNDS = 3  # of the race
SHOWN = (torch.tensor([0.4, 0.3]), torch.tensor([0.6, 3.5]))  # elevations and azimuths of the picture, and of the race


def posed_scene(mesh: Path, folder: Path, views: int, held_out: int, side: int) -> Path:
    """Photographs of a mesh from all around by `sdfgan dataset render`, and their cameras, in Blender's format."""
    command = ["dataset", "render", mesh, folder, "--views", views + held_out, "--resolution", side]
    command += ["--poses", "spherical_uniform", "--elevation", -90, 90, "--fov", math.degrees(FOV)]
    if sdfgan([str(word) for word in command]) != 0:
        raise SystemExit(f"{mesh}: could not be rendered")
    poses = json.loads((folder / "poses.json").read_text())
    angles = torch.tensor(list(poses.values()), dtype=torch.float64).deg2rad()
    matrices = to_blender(orbit_camera(rotate_axes((angles[:, 0], angles[:, 1])), FOV)).tolist()
    frames = [{"file_path": name, "transform_matrix": matrix} for name, matrix in zip(poses, matrices, strict=True)]
    for split, some in (("train", frames[:views]), ("val", frames[views:])):
        (folder / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": FOV, "frames": some}))
    return folder


def measure(config: NerfConfig, truth: GroundTruth) -> dict[str, Any]:
    """Train, unless the run is there, and compare the mesh; CPU minutes include what a run does at its end."""
    assert config.output_dir is not None
    known, used = config.output_dir / "summary.json", time.process_time()
    trained = not known.exists()
    summary = train(config) if trained else json.loads(known.read_text())
    row = {"model": config.model, "steps": summary["steps"], "surface_steps": config.surface_steps}
    if trained:
        row["cpu_minutes"] = (time.process_time() - used) / 60
    row["psnr"] = summary["scores"]["val"]["psnr"]
    mesh = trimesh.load(config.output_dir / "mesh.glb", force="mesh")
    row |= {**mesh_metrics(mesh, truth), "watertight": mesh.is_watertight}
    if config.model == "surface":
        row["traced"] = [race(config.output_dir, side) for side in SIDES]
    return row


@torch.no_grad()
def race(run: Path, side: int) -> dict[str, float]:
    """Images of the volume of a run against those of its surface, and the CPU time of an image of each: one thread.

    Both alternate, since other work on the machine slows them down; the times are medians.
    """
    model, _ = load_model(run)
    surface, axes = load_surface(run), rotate_axes(SHOWN)
    cameras, white = orbit_camera(axes, FOV), torch.ones(3)
    focal = side / 2 / math.tan(FOV / 2)
    intrinsics = torch.tensor([focal, focal, side / 2, side / 2]).expand(len(axes), 4).contiguous()
    views = pixel_views(cameras, intrinsics, torch.full((len(axes), 2), side))
    renderer = SceneRenderer(model, white, 2048)
    light = Lighting(ambient=1.0, headlight=0.0)

    def volume() -> Tensor:
        return torch.stack([renderer.look(views, index).rgb for index in range(len(axes))])

    def traced() -> Tensor:
        eyes = cameras[..., 3]
        return render(sdf=surface, axes=axes, resolution=side, light=light, background=white, condition=eyes).rgb

    images, seconds, threads = [], [], torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(ROUNDS):
        for draw in (volume, traced):
            begin = time.process_time()
            images.append(draw())
            seconds.append((time.process_time() - begin) / len(axes))
    torch.set_num_threads(threads)
    save_image(run / f"traced-{side}.png", image_grid(torch.cat(images[:2]), len(axes)))
    times = {"volume_seconds": median(seconds[::2]), "traced_seconds": median(seconds[1::2])}
    return {"side": side, "psnr": psnr(*images[:2]), **times}


def shown(mesh: trimesh.Trimesh) -> Tensor:
    """Its shape in grey, on white: [2, 3, 160, 160]."""
    bare = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    images = render_mesh(bare, rotate_axes(SHOWN), 160)
    return images[:, :3] + 1 - images[:, 3:]


def main() -> None:
    """Photograph each mesh, train each model on it, and print a row for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("meshes", nargs="+", type=Path)
    parser.add_argument("--models", nargs="+", choices=get_args(Model), default=["surface", "fast"])
    parser.add_argument("--views", type=int, default=60)
    parser.add_argument("--side", type=int, default=200, help="pixels")
    parser.add_argument("--steps", type=int, help="updates of each; default: the model's")
    parser.add_argument("--surface-steps", type=int, default=0, help="of surface's: traced, at the end")
    parser.add_argument("--mesh-resolution", type=int, default=128)
    parser.add_argument("--work", type=Path, help="keep photographs and runs here; those that are there are used")
    parser.add_argument("--json", type=Path, help="append a line for each run to this file")
    parser.add_argument("--picture", type=Path, help="a row of each mesh: the true one, then each model's, twice")
    arguments = parser.parse_args()
    rows, images = [], []
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        for path in arguments.meshes:
            folder = work / path.stem
            if not folder.exists():
                posed_scene(path, folder, arguments.views, held_out=4, side=arguments.side)
            true = normalise(read_mesh(path), "ball", 0.1)[0]
            truth, row_of_images = GroundTruth(true), [shown(true)]
            for model in arguments.models:
                run = work / f"{path.stem}-{model}"
                traced = arguments.surface_steps if model == "surface" else 0
                config = NerfConfig(
                    data=folder, model=model, steps=arguments.steps, output_dir=run, scene_scale=SCENE_SCALE,
                    surface_steps=traced, mesh_resolution=arguments.mesh_resolution,
                    video_frames=0, evaluate_interval=0, device="cpu",
                )  # fmt: skip
                row = {"mesh": path.stem, "views": arguments.views, **measure(config, truth), **environment("cpu")}
                row_of_images.append(shown(trimesh.load(run / "mesh.glb", force="mesh")))
                rows.append(row)
                if arguments.json is not None:
                    with arguments.json.open("a") as file:
                        file.write(json.dumps(row) + "\n")
            images.append(torch.stack(row_of_images, 1).flatten(0, 1))  # side by side: true, models; twice
        if arguments.picture is not None:
            save_image(arguments.picture, image_grid(torch.cat(images), len(images[0])))
    for traced in (row for row in rows if "traced" in row):
        for one in traced["traced"]:
            print(
                f"{traced['mesh']}, {one['side']} px: traced {one['traced_seconds']:.3f} s, volume "
                f"{one['volume_seconds']:.3f} s, PSNR of one against the other {one['psnr']:.1f} dB"
            )
    print("\n| mesh | model | steps | CPU minutes | PSNR | Chamfer, % of the diagonal |\n|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['mesh']} | `{row['model']}` | {row['steps']} | {row.get('cpu_minutes', math.nan):.1f} | "
            f"{row['psnr']:.1f} | {row['chamfer_percent']:.3f} |"
        )


if __name__ == "__main__":
    main()
