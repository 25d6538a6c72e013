"""The models of `train-nerf`: volumes, and what rays see in them."""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from pathlib import Path

import torch
from torch import Tensor, nn

from sdfgan.data.scenes import Views
from sdfgan.errors import UserError
from sdfgan.fields.nerf import NerfField, ProposalField, WithNormals
from sdfgan.fields.radiance_grid import RadianceGrid
from sdfgan.fields.ref_nerf import RefNerfField
from sdfgan.nerf.config import NerfConfig, ResolvedNerfConfig
from sdfgan.nerf.marching import MarchingGrid, render_packed
from sdfgan.ops.pixels import PixelSamples
from sdfgan.training.checkpoint import Saved, read_checkpoint, unpack_module
from sdfgan.volume import Rays, Sampling, VolumeField, VolumeRendering, render

_FARTHEST = 1000.0  # of unbounded scenes
_ANNEALING = 10.0  # how soon weights are trusted (mip-NeRF 360, sec. 3)
_PADDING = 0.01  # of the weights of cones (mip-NeRF, eq. 18)
_NEAREST = 0.01  # in front of a camera inside the scene's cube
_UPDATE_INTERVAL = 16  # steps between updates of the occupancy grid


class SceneModel(nn.Module):
    """A volume, and how it is looked at."""

    cones = False  # whether the volume is evaluated for Gaussians, not points
    nearest = 0.05  # where rays begin in unbounded scenes

    def __init__(self, config: ResolvedNerfConfig, bounded: bool) -> None:
        super().__init__()
        self.config, self.bounded = config, bounded

    @property
    @abstractmethod
    def field(self) -> VolumeField:
        """What the scene is made of."""

    @abstractmethod
    def look(self, rays: Rays, background: Tensor, normals: bool = False) -> VolumeRendering:
        """What rays see over a background [3]; without a graph."""

    def before_step(self, step: int, generator: torch.Generator) -> None:
        """What is to be done before the loss of a step, alike in all processes."""

    def see(self, views: Views) -> None:
        """What is to be done once the cameras are known."""

    def rays(self, pixels: PixelSamples) -> Rays:
        """Rays of pixels with the part of each that is in the scene."""
        config = self.config
        origins, directions = pixels.origins, pixels.directions
        if self.bounded:
            one_way, other = ((side - origins) / directions for side in (-1.0, 1.0))  # infinite where parallel
            near = torch.fmin(one_way, other).amax(1).clamp(min=max(_NEAREST, config.near or 0))
            far = torch.fmax(one_way, other).amin(1).clamp(max=config.far or math.inf)
            met = far > near  # others may be infinite at both ends
            near, far = torch.where(met, near, _NEAREST), torch.where(met, far, 0.0)
        else:
            near = torch.full_like(origins[:, 0], self.nearest if config.near is None else config.near)
            far = torch.full_like(near, config.far or _FARTHEST)
        return Rays(origins, directions, near, torch.maximum(far, near + 1e-4), pixels.radii)


class GridModel(SceneModel):
    """Hash grid and occupancy grid."""

    def __init__(self, config: ResolvedNerfConfig, bounded: bool) -> None:
        super().__init__(config, bounded)
        self.radiance = RadianceGrid(
            config.width,
            config.layers,
            config.hash_levels,
            log2_size=config.hash_table,
            finest=config.hash_finest,
            contracted=not bounded,
        )
        self.occupancy = MarchingGrid(config.grid_resolution, config.march_steps, contracted=not bounded)

    @property
    def field(self) -> VolumeField:
        return self.radiance

    def see(self, views: Views) -> None:
        pinholes = views.pinholes()
        if pinholes is not None:  # otherwise everything may be seen
            self.occupancy.see(*pinholes)

    def before_step(self, step: int, generator: torch.Generator) -> None:
        if step % _UPDATE_INTERVAL == 0:
            self.occupancy.refresh(self.radiance, generator)

    @torch.no_grad()
    def look(self, rays: Rays, background: Tensor, normals: bool = False) -> VolumeRendering:
        field: VolumeField = WithNormals(self.radiance) if normals else self.radiance
        marched = self.occupancy.march(rays, torch.full_like(rays.near, 0.5), self.radiance)
        return render_packed(marched, field, background)


class NetworkModel(SceneModel):
    """The classic models: levels of samples, of which the last is the image's."""

    nearest = 0.2

    def __init__(self, config: ResolvedNerfConfig, bounded: bool) -> None:
        super().__init__(config, bounded)
        sizes = config.width, config.layers, config.octaves, not bounded
        self.kind, self.cones = config.model, config.model != "nerf"
        self.proposes = config.model in ("mip-nerf-360", "ref-nerf")
        self.network: NerfField | RefNerfField = NerfField(*sizes)
        if config.model == "ref-nerf":
            self.network = RefNerfField(*sizes, config.ide_levels, config.bottleneck_noise, config.srgb)
        self.coarse: NerfField | ProposalField | None = None
        if config.model == "nerf":
            self.coarse = NerfField(*sizes)
        elif self.proposes:
            self.coarse = ProposalField(config.proposal_width, config.proposal_layers, config.octaves, not bounded)
        counts = (config.coarse_samples,) * (2 if self.proposes else 1) + (config.fine_samples,)
        self.sampling = Sampling(
            counts,
            "linear" if bounded else "disparity",
            merge=config.model == "nerf",
            blur=config.model == "mip-nerf",
            images=not self.proposes,
            padding=_PADDING if self.cones else 1e-5,
        )
        self.trust = 1.0  # in the proposals, while training

    @property
    def field(self) -> VolumeField:
        return self.network

    def before_step(self, step: int, generator: torch.Generator) -> None:
        done = step / self.config.steps
        self.trust = _ANNEALING * done / ((_ANNEALING - 1) * done + 1) if self.proposes else 1.0

    @torch.no_grad()
    def look(self, rays: Rays, background: Tensor, normals: bool = False) -> VolumeRendering:
        return self.render(rays, background, None, normals)

    def render(
        self, rays: Rays, background: Tensor, generator: torch.Generator | None, normals: bool = False
    ) -> VolumeRendering:
        """What rays see over a background [3] or [R, 3]; stratified where there is a generator, that is in training."""
        training = generator is not None
        sharpness = self.trust if training else 1.0
        sampling = dataclasses.replace(self.sampling, stratified=training, sharpness=sharpness)
        field: VolumeField = WithNormals(self.network) if normals and self.kind != "ref-nerf" else self.network
        return render(
            field,
            rays,
            condition=generator if self.kind == "ref-nerf" else None,
            sampling=sampling,
            proposals=() if self.coarse is None else (self.coarse,) * (len(sampling.counts) - 1),
            background=background if self.bounded else "last",
            cones="cone" if self.cones else None,
            full_covariance=not self.bounded,
            generator=generator,
        )


def make_model(config: ResolvedNerfConfig, bounded: bool) -> SceneModel:
    """The model of a resolved configuration."""
    return GridModel(config, bounded) if config.model == "fast" else NetworkModel(config, bounded)


def config_of(saved: Saved) -> ResolvedNerfConfig:
    """The configuration in a checkpoint. Raises UserError if it is none of `train-nerf`'s."""
    kind = saved.state.get("kind")
    if kind != "nerf":
        raise UserError(f"{saved.folder}: expected a checkpoint of train-nerf, got one of kind {kind!r}")
    return NerfConfig.from_json(saved.state.get("config"), saved.folder / "state.json")


def load_model(path: str | Path, device: str = "cpu") -> tuple[SceneModel, ResolvedNerfConfig]:
    """The model of a run folder or checkpoint, for looking, and its configuration. Raises UserError."""
    saved = read_checkpoint(Path(path))
    config = dataclasses.replace(config_of(saved), device=device).resolved()
    model = make_model(config, bool(saved.state.get("bounded"))).to(device)
    unpack_module(model, saved.tensors, "model", saved.folder)
    return model.requires_grad_(False), config
