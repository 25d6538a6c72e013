"""Train a torch module of your own (points [N, 3] to values [N], negative inside) on images, by `raycast.render`."""

import sys
from pathlib import Path

import torch
from torch import nn

from sdfgan import cameras, fields, images, meshes, raycast
from sdfgan.fields.function import FunctionField


class Blob(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return points.norm(dim=-1) - 0.5 + 0.2 * self.layers(points)[:, 0]


def train(folder: Path, steps: int = 300, resolution: int = 64) -> float:
    target = fields.Box((0.5, 0.25, 0.35)) - fields.Cylinder(0.2, 1.0)
    axes = cameras.rotate_axes((torch.tensor([0.5, -0.4, 0.3, 1.2]), torch.tensor([0.3, 1.8, 3.4, 5.0])))
    wanted = raycast.render(sdf=target, axes=axes, resolution=resolution).rgba.detach()
    module = Blob()
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(steps):
        image = raycast.render(sdf=module, axes=axes, resolution=resolution)
        loss = (image.rgba - wanted).square().mean() + 0.01 * fields.eikonal_loss(image.field.gradient)
        module.zero_grad()
        loss.backward()
        optimizer.step()
    images.save_image(folder / "own.png", images.image_grid(torch.cat([image.rgb.detach(), wanted[:, :3]]), columns=4))
    meshes.export_mesh(meshes.marching_cubes(FunctionField(module), None, 2 * resolution), folder / "own.glb")
    return loss.item()


if __name__ == "__main__":
    print(train(Path(*sys.argv[1:])))
