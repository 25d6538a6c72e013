"""What can be viewed: fields, volumes and meshes, each drawn by our own renderers from any orbit camera."""

from __future__ import annotations

import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import trimesh
from torch import Tensor

from sdfgan import ops
from sdfgan.cameras import DEFAULT_FOV
from sdfgan.fields import Field, PiGanField
from sdfgan.fields.base import Bound, bound_of
from sdfgan.gan import views
from sdfgan.images import colour_depth, colour_normals
from sdfgan.meshes import export_mesh, marching_cubes, read_mesh, read_model
from sdfgan.meshes.appearance import trace_model
from sdfgan.nerf.config import ResolvedNerfConfig
from sdfgan.nerf.mesh import scene_surface, surface_mesh
from sdfgan.nerf.models import SceneModel
from sdfgan.nerf.report import Look, SceneRenderer, depth_span
from sdfgan.ops.pixels import sample_pixels
from sdfgan.sdf.model import MeshSDF
from sdfgan.sdf.report import colour_distance, solid_mesh
from sdfgan.viewer.view import Seen, Style, View

Check = Callable[[], None]  # raises where the image is not wanted any more
_RAYS_AT_ONCE = 2**13  # of a NeRF, between two looks at whether the image is still wanted
_VOLUME_SIDE = 256  # pixels of a generator's volume, which is drawn in one go
_BEHIND = 0.02  # how far a slice may lie behind the surface that it cuts


class Scene(ABC):
    """Something to view. Its `subject` is which of its shapes: a generator's condition, else None."""

    title: str
    notes: Sequence[str] = ()  # what a user should know of it
    lit = sliced = True  # whether light matters to it, and whether it has distances
    max_side = 2048  # pixels of the square that a part is seen of: what is zoomed in further is drawn coarser
    fov = DEFAULT_FOV
    start = (math.radians(20), math.radians(30))  # elevation and azimuth to begin with

    def condition(self, choice: Any = None) -> Any:
        """The subject of a choice, where there are several."""
        return None

    @abstractmethod
    def look(self, view: View, style: Style, subject: Any, check: Check) -> Seen:
        """What is seen from there."""

    @abstractmethod
    def mesh(self, subject: Any, cells: int) -> trimesh.Trimesh:
        """Its surface. Raises UserError where there is none."""

    def distance(self, points: Tensor, subject: Any) -> Tensor:
        """Signed distances [N] at points [N, 3] on the CPU, for slices."""
        raise NotImplementedError(f"{type(self).__name__} has no distances")

    def span(self, seen: Seen, view: View) -> tuple[float, float]:
        """The depths that are told apart."""
        return view.distance - 1, view.distance + 1

    @torch.no_grad()
    def image(self, view: View, style: Style, subject: Any = None, check: Check = lambda: None) -> Tensor:
        """[3, H, W] in [0, 1] on the CPU; smaller than the view where it is zoomed in very far."""
        view = view.limited(self.max_side)
        seen = self.look(view, style, subject, check)
        behind = torch.tensor(style.background)[:, None, None]
        if style.show == "depth":
            solid = (seen.alpha > 0.5) & seen.depth.isfinite()
            depth = torch.where(solid, seen.depth, torch.inf)
            grey = colour_depth(depth[None], self.span(seen, view))[0]  # near is bright: on white it is dark
            image = torch.where(solid, 1 - grey if behind.mean() > 0.5 else grey, behind)
        else:
            colour = colour_normals(seen.normals, seen.alpha) if style.show == "normals" else seen.rgb
            image = colour + (1 - seen.alpha) * behind
        if style.cut is not None and self.sliced:
            check()
            image = self._with_slice(image, seen, view, style.cut, subject)
        return image.clamp(0, 1)

    def _with_slice(self, image: Tensor, seen: Seen, view: View, cut: tuple[int, float], subject: Any) -> Tensor:
        """An image with a slice in it, with lines of equal distance, where nothing is before it."""
        origins, directions = rays(view)
        t = until_slice(origins, directions, cut)
        points = origins + t[:, None] * directions
        depth = torch.where(seen.alpha > 0.5, seen.depth, torch.inf).flatten()
        on = (t > 0) & (points.abs().amax(1) <= 1) & (t <= depth + _BEHIND)
        values = torch.ones_like(t)
        values[on] = self.distance(points[on].contiguous(), subject)
        return torch.where(on.view(image.shape[1:]), colour_distance(values.view(1, *image.shape[1:]))[0], image)

    def glb(self, subject: Any, cells: int) -> bytes:
        """A file of its mesh."""
        with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mesh.glb"
            export_mesh(self.mesh(subject, cells), path)
            return path.read_bytes()


def rays(view: View, side: int = 1) -> tuple[Tensor, Tensor]:
    """Origins and unit directions [N, 3] of side^2 rays per pixel of a view, row by row."""
    found = sample_pixels(view.cameras(supersample=side), torch.arange(side**2 * view.height * view.width))
    return found.origins, found.directions


def until_slice(origins: Tensor, directions: Tensor, cut: tuple[int, float]) -> Tensor:
    """[N] how far rays go until they meet the plane of a slice; not finite, or not positive, where they do not."""
    axis, height = cut
    return (height - origins[:, axis]) / directions[:, axis]


class Cut(Field):
    """A field of which what lies on one `side` of a plane (1: above it, -1: below) is cut away."""

    def __init__(self, field: Field, cut: tuple[int, float], side: float) -> None:
        super().__init__()
        self.field, (self.axis, self.height), self.side = field, cut, side
        self.lipschitz: Bound = bound_of(max, field.lipschitz, 1.0)

    @property
    def extent(self) -> Bound:
        """See `Field.extent`."""
        return self.field.extent

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """See `Field.sdf`."""
        beyond = self.side * (points[:, self.axis] - self.height)
        return torch.maximum(self.field.sdf(points, condition, image), beyond)

    def rgb(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """See `Field.rgb`."""
        return self.field.rgb(points, condition, image)


class FieldScene(Scene):
    """A signed-distance field, or a volume that has one; the subject is its condition."""

    def __init__(self, field: Field, title: str, fov: float = DEFAULT_FOV) -> None:
        self.field, self.title, self.fov = field, title, fov
        self.solid: Field = field.shell() if isinstance(field, MeshSDF) and field.unsigned else field  # to be rendered
        self.lit = self.sliced = not isinstance(field, PiGanField)
        self.max_side = Scene.max_side if self.lit else _VOLUME_SIDE

    @torch.no_grad()
    def condition(self, choice: Any = None) -> Any:
        """See `Scene.condition`."""
        return self.field.condition(None)

    @property
    def device(self) -> torch.device:
        """Where the field is."""
        return next(self.field.parameters()).device

    def look(self, view: View, style: Style, subject: Any, check: Check) -> Seen:
        """See `Scene.look`."""
        window, axes, field = view.window, view.axes.to(self.device), self.solid
        options: dict[str, Any] = {"resolution": window.side, "fov": view.fov}
        if self.lit:
            options["light"] = style.light
            rows, columns = window.inside
            pixels = torch.zeros(1, window.side, window.side, dtype=torch.bool)
            pixels[:, rows, columns] = True
            if not pixels.all():
                options["pixels"] = pixels.to(axes.device)
            if style.cut is not None:
                axis, height = style.cut
                above = float(axes[0, 2, axis]) * view.distance > height
                field = Cut(field, style.cut, 1.0 if above else -1.0)
        made = views.look(field, subject, axes, **options)
        parts = ((made.rgb, 0.0), (made.alpha, 0.0), (made.depth, math.inf), (made.normals, 0.0))
        return Seen(*(window.cut_from(part[0].cpu(), fill) for part, fill in parts))

    def distance(self, points: Tensor, subject: Any) -> Tensor:
        """See `Scene.distance`."""
        points = points.to(self.device)
        image = torch.zeros(len(points), dtype=torch.int64, device=points.device)
        return self.field.sdf(points, subject, image).float().cpu()

    def mesh(self, subject: Any, cells: int) -> trimesh.Trimesh:
        """See `Scene.mesh`; of a field that was fitted to a mesh, where that lay."""
        if isinstance(self.field, MeshSDF):
            return solid_mesh(self.field, cells)
        return marching_cubes(self.field, subject, cells)


class NerfScene(Scene):
    """A radiance field of `train-nerf`. Zooming brings the camera nearer."""

    lit = sliced = False
    fov = math.radians(40)

    def __init__(self, model: SceneModel, config: ResolvedNerfConfig, title: str) -> None:
        self.model, self.config, self.title = model, config, title

    def look(self, view: View, style: Style, subject: Any, check: Check) -> Seen:
        """See `Scene.look`."""

        def wanted(function: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
            made = []
            for part in parts:
                check()
                made.append(function(part))
            return made

        cameras = view.cameras(self.config.device, approach=True)
        black = torch.zeros(3, device=self.config.device)
        renderer = SceneRenderer(self.model, black, _RAYS_AT_ONCE, wanted)
        found = renderer.look(cameras, 0, normals=style.show == "normals")
        normals = torch.zeros_like(found.rgb) if found.normals is None else found.normals
        return Seen(*(part.cpu() for part in (found.rgb, found.opacity, found.depth, normals)))

    def span(self, seen: Seen, view: View) -> tuple[float, float]:
        """See `Scene.span`."""
        return depth_span(Look(*seen))

    def mesh(self, subject: Any, cells: int) -> trimesh.Trimesh:
        """See `Scene.mesh`; in the cube from -1 to 1, y up."""
        return surface_mesh(scene_surface(self.model, self.config, cells), cells)[0]


class MeshScene(Scene):
    """A mesh file, with its colours, in the unit ball."""

    def __init__(self, path: Path) -> None:
        self.path, self.title = path, path.name
        self.model, self.notes = read_model(path)

    def look(self, view: View, style: Style, subject: Any, check: Check) -> Seen:
        """See `Scene.look`."""
        check()
        side = 2 if style.fine else 1  # rays per pixel
        origins, directions = rays(view, side)
        begin = torch.zeros(len(origins), 1)
        if style.cut is not None:
            begin = until_slice(origins, directions, style.cut)[:, None]
            end = 2 * view.distance  # behind everything: nothing is left of what never meets the plane
            begin = torch.where(begin > 0, begin, end).clamp(max=end)
            origins = origins + begin * directions
        made = trace_model(self.model, origins, directions, view.axes, style.light)
        solid = made.depth.isfinite()[:, None]
        depth = torch.where(solid, begin + made.depth[:, None], 0.0)
        flat = torch.cat([made.rgba, solid, depth, made.normals], 1)
        canvas = F.avg_pool2d(flat.T.reshape(1, 9, side * view.height, side * view.width), side)[0]
        rgb, alpha, solid, depth, normals = canvas.split([3, 1, 1, 1, 3])
        return Seen(rgb, alpha, torch.where(solid > 0, depth / solid, math.inf), F.normalize(normals, dim=0))

    def distance(self, points: Tensor, subject: Any) -> Tensor:
        """See `Scene.distance`."""
        return ops.mesh_distance(self.model.tree, points).distance

    def mesh(self, subject: Any, cells: int) -> trimesh.Trimesh:
        """See `Scene.mesh`; as it lies in the file, without colours."""
        return read_mesh(self.path)

    def glb(self, subject: Any, cells: int) -> bytes:
        """See `Scene.glb`; a .glb as it is."""
        return self.path.read_bytes() if self.path.suffix.lower() == ".glb" else super().glb(subject, cells)
