"""The models of `train-nerf`: volumes, and what rays see in them."""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdfgan.data.scenes import Views
from sdfgan.errors import UserError
from sdfgan.fields.base import map_tensors
from sdfgan.fields.nerf import NerfField, ProposalField, WithNormals
from sdfgan.fields.radiance_grid import RadianceGrid
from sdfgan.fields.ref_nerf import RefNerfField
from sdfgan.fields.surface_grid import SurfaceGrid
from sdfgan.nerf.config import NerfConfig, ResolvedNerfConfig
from sdfgan.nerf.marching import MarchingGrid, render_packed
from sdfgan.ops.pixels import PixelSamples, PixelViews
from sdfgan.raycast import PhotographRays
from sdfgan.training.checkpoint import Saved, read_checkpoint, unpack_module
from sdfgan.volume import Radiance, Rays, RaySamples, Sampling, SdfVolume, VolumeField, VolumeRendering, render
from sdfgan.volume.field import Kind, surface_density

_HULL = 64, 256  # cells across the visual hull's grid, and steps across its diagonal
_FARTHEST = 1000.0  # of unbounded scenes
_ANNEALING = 10.0  # how soon weights are trusted (mip-NeRF 360, sec. 3)
_PADDING = 0.01  # of the weights of cones (mip-NeRF, eq. 18)
_NEAREST = 0.01  # in front of a camera inside the scene's cube
_DENSITIES: dict[str, Kind] = {"volsdf": "laplace", "neus": "logistic"}
_SPHERES = {True: 0.7, False: 0.4}  # first radii, of bounded scenes and of others
_THINNING = 0.8  # power of the share of the steps
_SLOPE_POINTS = 2000  # at which gradients are measured, in each step that is traced
_LEAST_COSINE = 0.1  # of a ray and its camera's axis
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

    def continued(self, steps: int) -> None:
        """What is to be done when a checkpoint after so many steps has been loaded."""

    def rays(self, pixels: PixelSamples) -> Rays:
        """Rays of pixels with the part of each that is in the scene."""
        config = self.config
        origins, directions = pixels.origins, pixels.directions
        if self.bounded:
            near, far = cube_span(origins, directions, max(_NEAREST, config.near or 0), config.far or math.inf)
        else:
            near = torch.full_like(origins[:, 0], self.nearest if config.near is None else config.near)
            far = torch.full_like(near, config.far or _FARTHEST)
        return Rays(origins, directions, near, torch.maximum(far, near + 1e-4), pixels.radii)


@torch.no_grad()
def cube_span(origins: Tensor, directions: Tensor, nearest: float, farthest: float) -> tuple[Tensor, Tensor]:
    """The distances [R] between which rays are in the cube [-1, 1]^3; `_NEAREST` and 0 of those that miss it.

    Without a graph: rays whose cameras are corrected learn from what they meet, not from where they begin.
    """
    one_way, other = ((side - origins) / directions for side in (-1.0, 1.0))  # infinite where parallel
    near = torch.fmin(one_way, other).amax(1).clamp(min=nearest)
    far = torch.fmax(one_way, other).amin(1).clamp(max=farthest)
    met = far > near  # others may be infinite at both ends
    return torch.where(met, near, _NEAREST), torch.where(met, far, 0.0)


class MarchedModel(SceneModel):
    """A bounded or contracted volume and its occupancy grid."""

    occupancy: MarchingGrid

    def see(self, views: Views) -> None:
        pinholes = views.pinholes()
        if pinholes is not None:  # otherwise everything may be seen
            self.occupancy.see(*pinholes)

    def before_step(self, step: int, generator: torch.Generator) -> None:
        if step % _UPDATE_INTERVAL == 0:
            self.occupancy.refresh(self.field.density, generator)

    @torch.no_grad()
    def look(self, rays: Rays, background: Tensor, normals: bool = False) -> VolumeRendering:
        field: VolumeField = WithNormals(self.field) if normals else self.field
        marched = self.occupancy.march(rays, torch.full_like(rays.near, 0.5), self.field)
        return render_packed(marched, field, background)


class GridModel(MarchedModel):
    """Hash grid and occupancy grid."""

    def __init__(self, config: ResolvedNerfConfig, bounded: bool) -> None:
        super().__init__(config, bounded)
        self.radiance = RadianceGrid(contracted=not bounded, **_grid_sizes(config))
        self.occupancy = MarchingGrid(config.grid_resolution, config.march_steps, contracted=not bounded)

    @property
    def field(self) -> VolumeField:
        return self.radiance


def _grid_sizes(config: ResolvedNerfConfig) -> dict[str, int]:
    """Of a hash grid and the networks behind it."""
    return {
        "width": config.width,
        "layers": config.layers,
        "levels": config.hash_levels,
        "log2_size": config.hash_table,
        "finest": config.hash_finest,
    }


class SurfaceVolume(SdfVolume):
    """A learnt surface as a volume: colours are those seen from where a ray comes; extras are the gradients [N, 3]."""

    field: SurfaceGrid
    beta: Tensor

    def radiance(self, places: RaySamples, condition: Any = None) -> Radiance:
        """See `VolumeField`."""
        sample = self.field.seen(places.points, places.directions)
        density = self._density(sample.sdf, sample.gradient, places)
        return Radiance(density, sample.rgb, F.normalize(sample.gradient, dim=1), sample.gradient)

    def densest(self, places: RaySamples, reach: float) -> Tensor:
        """The largest density [N] within some distance of the places."""
        sdf = self.field.sdf(places.points) - reach
        return surface_density(self.kind, sdf, self.beta, torch.ones_like(sdf), None)


class SurfaceModel(MarchedModel):
    """A signed distance in a hash grid, as a volume that grows thinner, and finer, in training.

    Its thickness is b / (1 + (b - e) / e t^0.8) after a share t of the steps, from b to e (BakedSDF, Yariv et al.
    2023, arXiv:2302.14859, appendix A). In an unbounded scene the surface is in the cube [-1, 1]^3, and what is beyond
    is a grid model of its own.
    """

    def __init__(self, config: ResolvedNerfConfig, bounded: bool) -> None:
        super().__init__(config, bounded)
        radius = config.sphere_radius or _SPHERES[bounded]
        surface = SurfaceGrid(radius=radius, **_grid_sizes(config))
        beta = nn.Buffer(torch.tensor(config.thickness))
        self.volume = SurfaceVolume(surface, beta, _DENSITIES[config.surface_density])
        self.occupancy = MarchingGrid(config.grid_resolution, config.march_steps, contracted=False)
        self.beyond = None if bounded else GridModel(config, bounded)
        self.traced = False  # whether the step sees the surface, not the volume
        self.cameras: PixelViews | None = None

    @property
    def field(self) -> VolumeField:
        return self.volume

    @property
    def surface(self) -> SurfaceGrid:
        """Its signed distance, in scene coordinates."""
        return self.volume.field

    def before_step(self, step: int, generator: torch.Generator) -> None:
        config, done = self.config, step / self.config.steps
        begin, end, added = config.thickness, config.thickness_final, config.hash_levels - config.coarse_levels
        self.volume.beta.fill_(begin / (1 + (begin - end) / end * done**_THINNING))
        finer = min(done / config.coarse_share, 1.0) if config.coarse_share else 1.0
        self.surface.use(config.coarse_levels + math.ceil(finer * added))
        self.surface.detail.fill_(finer)  # first colours are explained by normals, not painted on
        self._weigh_directions(done)
        self.traced = step >= config.steps - config.surface_steps
        if self.traced:  # every time, so that a run that is continued knows it
            self.surface.measure_slope(_SLOPE_POINTS)
        if step % _UPDATE_INTERVAL == 0:
            self.occupancy.refresh(partial(self.volume.densest, reach=2 / config.grid_resolution), generator)
        if self.beyond is not None:
            self.beyond.before_step(step, generator)

    def see(self, views: Views) -> None:
        super().see(views)
        self.cameras = views.cameras
        if self.beyond is not None:
            self.beyond.see(views)

    def continued(self, steps: int) -> None:
        self._weigh_directions(max(steps - 1, 0) / self.config.steps)

    def _weigh_directions(self, done: float) -> None:
        """None until all levels are in use: what depends on the view is explained by how the normal faces it first.

        Otherwise a colour network can give a dent the shading of a plane. What is left to directions follows linearly.
        """
        share = self.config.coarse_share
        self.surface.view_dependence = max(0.0, done - share) / (1 - share or 1.0)

    def photograph_rays(self, rays: Rays, view: Tensor) -> PhotographRays:
        """Rays of photographs `view` [R], to be traced."""
        assert self.cameras is not None and rays.radii is not None, "after `see`"
        axes = self.cameras.camera_to_world[view, :, :3].mT
        if self.cameras.distortion is None:
            footprint = self.cameras.intrinsics[view, :2].prod(1).rsqrt()
        else:  # as wide as a circle of that radius (mip-NeRF); the lens may have made it smaller or larger
            footprint = math.sqrt(3) * rays.radii / -(axes[:, 2] * rays.directions).sum(1).clamp(max=-_LEAST_COSINE)
        return PhotographRays(rays.origins, rays.directions, rays.near, rays.far, axes, footprint)

    def split(self, rays: Rays) -> tuple[Rays, Rays]:
        """The parts of rays in the cube and, of an unbounded scene, behind it."""
        near, far = cube_span(rays.origins, rays.directions, self.nearest, math.inf)
        near, far = torch.maximum(near, rays.near), torch.minimum(far, rays.far)
        behind = rays._replace(near=torch.where(far > near, far, rays.near))
        return rays._replace(near=near, far=torch.maximum(far, near + 1e-4)), behind

    @torch.no_grad()
    def look(self, rays: Rays, background: Tensor, normals: bool = False) -> VolumeRendering:
        if self.beyond is None:
            return super().look(rays, background, normals)
        rays, behind = self.split(rays)
        back = self.beyond.look(behind, background, normals)
        front = super().look(rays, back.rgb, normals)
        left = (1 - front.opacity) * back.opacity
        opacity = front.opacity + left
        depth = front.opacity * front.depth.nan_to_num(0, 0) + left * back.depth.nan_to_num(0, 0)
        normal = None
        if front.normals is not None and back.normals is not None:
            normal = front.opacity[:, None] * front.normals + left[:, None] * back.normals
            normal = F.normalize(normal, dim=1)
        depth = torch.where(opacity > 0, depth / opacity, math.inf)
        return front._replace(opacity=opacity, depth=depth, normals=normal)


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
        self.occupancy = MarchingGrid(*_HULL, contracted=False) if config.visual_hull and bounded else None

    def see(self, views: Views) -> None:
        if self.occupancy is not None and views.cameras.distortion is None:
            self.occupancy.see(views.cameras, views.sizes)
            self.occupancy.carve(views)

    @property
    def field(self) -> VolumeField:
        return self.network

    def before_step(self, step: int, generator: torch.Generator) -> None:
        done = step / self.config.steps
        self.trust = _ANNEALING * done / ((_ANNEALING - 1) * done + 1) if self.proposes else 1.0

    def met(self, rays: Rays) -> tuple[Rays, Tensor]:
        """Of rays those that pass the visual hull, between where they do, and which they are [M] int64."""
        assert self.occupancy is not None
        which, near, far = self.occupancy.span(rays)
        some: Rays = map_tensors(lambda part: part[which], rays)
        return some._replace(near=near, far=far), which

    @torch.no_grad()
    def look(self, rays: Rays, background: Tensor, normals: bool = False) -> VolumeRendering:
        if self.occupancy is None:
            return self.render(rays, background, None, normals)
        some, which = self.met(rays)
        seen, count = self.render(some, background, None, normals), len(rays.near)
        return VolumeRendering(
            rgb=background.repeat(count, 1).index_copy(0, which, seen.rgb),
            opacity=torch.zeros_like(rays.near).index_copy(0, which, seen.opacity),
            depth=torch.full_like(rays.near, math.inf).index_copy(0, which, seen.depth),
            normals=None if seen.normals is None else torch.zeros_like(rays.origins).index_copy(0, which, seen.normals),
            extras=None,
            levels=(),
            samples=None,
            places=None,
        )

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
    kinds: dict[str, type[SceneModel]] = {"fast": GridModel, "surface": SurfaceModel}
    return kinds.get(config.model, NetworkModel)(config, bounded)


def config_of(saved: Saved) -> ResolvedNerfConfig:
    """The configuration in a checkpoint. Raises UserError if it is none of `train-nerf`'s."""
    kind = saved.state.get("kind")
    if kind != "nerf":
        raise UserError(f"{saved.folder}: expected a checkpoint of train-nerf, got one of kind {kind!r}")
    return NerfConfig.from_json(saved.state.get("config"), saved.folder / "state.json")


def load_model(path: str | Path, device: str = "cpu") -> tuple[SceneModel, ResolvedNerfConfig]:
    """The model of a run folder or checkpoint, for looking, and its configuration. Raises UserError."""
    return model_of(read_checkpoint(Path(path)), device)


def model_of(saved: Saved, device: str = "cpu") -> tuple[SceneModel, ResolvedNerfConfig]:
    """The same of a checkpoint that has been read."""
    config = dataclasses.replace(config_of(saved), device=device).resolved()
    model = make_model(config, bool(saved.state.get("bounded"))).to(device)
    unpack_module(model, saved.tensors, "model", saved.folder)
    model.continued(saved.state["step"])
    return model.requires_grad_(False), config
