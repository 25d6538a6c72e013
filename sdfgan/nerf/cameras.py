"""Corrections of the cameras of training images: a small rotation and translation of each, learnt with the scene.

A ray from o along d becomes one from o + v along exp([w]) d: the camera turns by w (radians, about its own centre) and
moves by v, both in scene coordinates. What moves, turns or scales all cameras together would move, turn or scale the
scene as well, which no image tells; so to first order these seven common motions are taken out of the corrections.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from sdfgan.data.scenes import Scene, Views
from sdfgan.errors import UserError
from sdfgan.ops.pixels import PixelSamples
from sdfgan.training.checkpoint import Saved, unpack_module

_RANK = 1e-6  # of the largest singular value: common motions below are combinations of others


class CameraCorrections(nn.Module):
    """Rotations and translations of cameras at `positions` [N, 3] in scene coordinates; nothing where there is none."""

    common: Tensor

    def __init__(self, positions: Tensor) -> None:
        super().__init__()
        if len(positions):
            self.free = nn.Parameter(torch.zeros(len(positions), 6))
            # In checkpoints, too: another machine's singular vectors may differ in their last digits.
            self.register_buffer("common", _common_motions(positions.detach().cpu()))

    @property
    def values(self) -> Tensor:
        """[N, 6]: rotations w, then translations v."""
        free = self.free.flatten()
        return (free - (self.common @ free) @ self.common).view(-1, 6)

    def forward(self, pixels: PixelSamples, image: Tensor) -> PixelSamples:
        """The rays of pixels of the images [R]; differentiable in the corrections."""
        turn, move = self.values[image].split(3, 1)
        return pixels._replace(origins=pixels.origins + move, directions=turned(pixels.directions, turn))

    @torch.no_grad()
    def poses(self, camera_to_world: Tensor, unit: float = 1.0) -> Tensor:
        """The corrected cameras of given ones [N, 3, 4], in whose coordinates a scene unit is `unit` long."""
        turn, move = self.values.to(camera_to_world).split(3, 1)
        axes, position = camera_to_world[:, :, :3].mT, camera_to_world[:, :, 3]
        return torch.cat((turned(axes, turn[:, None]).mT, (position + unit * move)[:, :, None]), 2)

    @torch.no_grad()
    def numbers(self) -> dict[str, Tensor]:
        """Means for the log: how far cameras are turned, in degrees, and moved, in scene units."""
        turn, move = self.values.split(3, 1)
        return {
            "camera_rotation": turn.norm(dim=1).mean() * (180 / math.pi),
            "camera_translation": move.norm(dim=1).mean(),
        }

    def corrected(self, scene: Scene) -> Scene:
        """The scene with the corrected cameras of its training images, also in its frames."""
        frames = [frame for frame in scene.frames if frame.split == "train"]
        if frames:
            poses = self.poses(torch.stack([frame.pose for frame in frames]), float(scene.to_file[0, 0]))
            frames = [frame._replace(pose=pose) for frame, pose in zip(frames, poses, strict=True)]
        others = [frame for frame in scene.frames if frame.split != "train"]
        cameras = scene.train.cameras
        cameras = cameras._replace(camera_to_world=self.poses(cameras.camera_to_world))
        return scene._replace(train=dataclasses.replace(scene.train, cameras=cameras), frames=(*frames, *others))


def turned(vectors: Tensor, turn: Tensor) -> Tensor:
    """Vectors [..., 3] rotated about `turn` [..., 3] by its length in radians (Rodrigues); differentiable in both."""
    angle = turn.square().sum(-1, keepdim=True).clamp(min=1e-20).sqrt()
    turn, vectors = torch.broadcast_tensors(turn, vectors)
    across = torch.linalg.cross(turn, vectors)
    sine, cosine = torch.sinc(angle / math.pi), torch.sinc(angle / (2 * math.pi)).square() / 2
    return vectors + sine * across + cosine * torch.linalg.cross(turn, across)


def saved_corrections(saved: Saved, views: Views) -> CameraCorrections:
    """Those of a run that learnt them. Raises UserError if they are of another number of images."""
    free = saved.tensors.get("cameras.free")
    if free is not None and len(free) != len(views):
        raise UserError(f"{saved.folder}: has corrections of {len(free)} cameras, and the scene has {len(views)}")
    corrections = CameraCorrections(views.cameras.camera_to_world[:, :, 3])
    unpack_module(corrections, saved.tensors, "cameras", saved.folder)
    return corrections


def _common_motions(positions: Tensor) -> Tensor:
    """[7, 6 N] or fewer: orthonormal rows that span what moving, turning and scaling all cameras does to each."""
    positions = positions.double()
    axes, count = torch.eye(3).to(positions), len(positions)
    every = axes[:, None].expand(3, count, 3)
    moving = torch.cat((torch.zeros_like(every), every), 2)
    turning = torch.cat((every, torch.linalg.cross(every, positions.expand(3, count, 3))), 2)
    scaling = torch.cat((torch.zeros_like(positions), positions), 1)[None]
    motions = torch.cat((moving, turning, scaling)).flatten(1)  # [7, 6 N]
    _, sizes, rows = torch.linalg.svd(motions, full_matrices=False)
    return (rows * (sizes > _RANK * sizes[0])[:, None]).float()
