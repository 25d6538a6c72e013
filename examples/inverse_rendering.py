"""Inverse rendering of two spheres from four images; writes views.png (found above wanted), fit.gif and mesh.glb."""

import sys
from pathlib import Path

import torch

from sdfgan import cameras, fields, images, meshes, raycast

TRUTH = ([0.42, 0.25], [0.34, 0.12, 0.08], 0.2, [[0.85, 0.35, 0.2], [0.2, 0.4, 0.8]], [0.35, 0.6])
START = ([0.35, 0.32], [0.25, 0.2, 0.0], 0.1, [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]], [0.2, 0.45])


def look(values: list[torch.Tensor], **size: int) -> tuple[fields.Field, torch.Tensor]:
    radii, offset, blend, colours, (elevation, azimuth) = values
    one, two = (fields.Sphere(radius).coloured(colour) for radius, colour in zip(radii, colours, strict=True))
    scene = fields.SmoothUnion(one, two.translated(offset), blend)
    axes = cameras.rotate_axes((elevation.expand(4), azimuth + torch.tensor([0.0, 1.6, 3.1, 4.7])))
    return scene, raycast.render(sdf=scene, axes=axes, light=(0.5, 0.7, 0.4), **size).rgba


def fit(folder: Path, steps: int = 300, resolution: int = 128) -> list[torch.Tensor]:
    truth, found = ([torch.tensor(value, requires_grad=True) for value in values] for values in (TRUTH, START))
    wanted = look(truth, resolution=resolution, supersample=4)[1].detach()
    optimizer = torch.optim.Adam(found, 0.02, betas=(0.8, 0.95))
    with images.VideoWriter(folder / "fit.gif") as video:
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / steps)
            scene, image = look(found, resolution=resolution)
            optimizer.zero_grad()
            (image - wanted).square().mean().backward()
            optimizer.step()
            video.add(sheet := images.image_grid(torch.cat([image.detach(), wanted])[:, :3], columns=4))
    images.save_image(folder / "views.png", sheet)
    meshes.export_mesh(meshes.marching_cubes(scene, None, 128), folder / "mesh.glb")
    return found


if __name__ == "__main__":
    print(fit(Path(*sys.argv[1:])))
