"""Raycast a function of points: its colour, depth and normals, and where single rays meet it; writes raycast.png."""

# %% A signed-distance function is any function of points [N, 3], negative inside; this one is a gyroid in a ball.
import torch

from sdfgan import cameras, images, raycast


def gyroid(points: torch.Tensor) -> torch.Tensor:
    x, y, z = (8 * points).unbind(-1)
    sheet = x.sin() * y.cos() + y.sin() * z.cos() + z.sin() * x.cos()
    return torch.maximum(sheet.abs() / 14 - 0.04, points.norm(dim=-1) - 0.8)


# %% A camera looks at the origin from an elevation and an azimuth, in radians.
axes = cameras.rotate_axes((torch.tensor([0.5]), torch.tensor([0.7])))
image = raycast.render(sdf=gyroid, axes=axes, resolution=256, background=(1.0, 1.0, 1.0))
depth, normals = images.colour_depth(image.depth), images.colour_normals(image.normals, image.alpha)
images.save_image("raycast.png", images.image_grid(torch.cat([image.rgb, depth, normals]), columns=3))

# %% The march alone, without an image: which of 32 x 32 rays hit, and how far away.
found = raycast.multiscale(axes, (8, 4), None, gyroid)
print(f"{int(found.hit.sum())} rays hit, the nearest at {found.distances[found.hit].min().item():.3f}")
