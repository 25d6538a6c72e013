"""A tiny scene to learn from: a coloured ball, exact, as posed images in Blender's format."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sdfgan.cameras import look_at, ray_grid, to_blender

SIDE, FOV, DISTANCE, RADIUS = 20, math.radians(40), 4.0, 1.0


def cameras(count: int, start: float = 0.0) -> Tensor:
    """`camera_to_world` [count, 3, 4] all around, looking at the origin."""
    azimuth = start + 2 * math.pi * torch.arange(count) / count
    elevation = 0.6 * torch.sin(3 * azimuth)
    position = torch.stack((elevation.cos() * azimuth.sin(), elevation.sin(), elevation.cos() * azimuth.cos()), 1)
    return look_at(DISTANCE * position)


def images(poses: Tensor, side: int = SIDE) -> np.ndarray:
    """[N, side, side, 4] uint8, straight RGBA: the colour is the normal's."""
    origins, directions = ray_grid(poses, side, fov=FOV)
    middle = -(origins * directions).sum(-1)
    square = RADIUS**2 - (origins.square().sum(-1) - middle**2)
    hit = origins + (middle - square.clamp(min=0).sqrt())[..., None] * directions
    color = torch.where(square[..., None] > 0, hit / RADIUS / 2 + 0.5, 0.0)
    rgba = torch.cat((color, (square > 0)[..., None].float()), -1)
    return (rgba * 255).round().byte().numpy()


def write_frames(folder: Path, name: str, poses: Tensor, side: int = SIDE) -> list[dict]:
    """PNGs in folder/name, and the frames that describe them."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    frames = []
    for i, (picture, matrix) in enumerate(zip(images(poses, side), to_blender(poses), strict=True)):
        Image.fromarray(picture).save(folder / name / f"r_{i}.png")
        frames.append({"file_path": f"./{name}/r_{i}", "transform_matrix": matrix.tolist()})
    return frames


def blender_scene(folder: Path, train: int = 8, val: int = 2, side: int = SIDE) -> Path:
    """A scene with transforms_train.json and transforms_val.json."""
    for name, poses in (("train", cameras(train)), ("val", cameras(val, start=0.3))):
        values = {"camera_angle_x": FOV, "frames": write_frames(folder, name, poses, side)}
        (folder / f"transforms_{name}.json").write_text(json.dumps(values))
    return folder
