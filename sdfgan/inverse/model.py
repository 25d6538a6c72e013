"""What is fitted: the network that learns a mesh, and a scene of two balls whose parameters are looked for."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sdfgan import cameras, fields
from sdfgan.fields.base import Field
from sdfgan.raycast import Lighting

TRUTH = {
    "radius": 0.42, "second_radius": 0.25, "offset": (0.34, 0.12, 0.08), "blend": 0.2, "colour": (0.85, 0.35, 0.2),
    "second_colour": (0.2, 0.4, 0.8), "camera": (0.35, 0.6),
}  # fmt: skip
START = {
    "radius": 0.35, "second_radius": 0.32, "offset": (0.25, 0.2, 0.0), "blend": 0.1, "colour": (0.5, 0.5, 0.5),
    "second_colour": (0.5, 0.5, 0.5), "camera": (0.2, 0.45),
}  # fmt: skip
_LIGHT = (0.5, 0.7, 0.4)  # is known: or turning the camera, the scene and the light together would change nothing
_CSG_VIEWS = (0.0, 1.6, 3.1, 4.7)  # known turns between the pictures; the pose of the whole is not known


def csg_scene(p: Mapping[str, Tensor]) -> tuple[Field, Tensor, Lighting]:
    """The field, cameras [4, 3, 3] and light of parameters."""
    one = fields.Sphere(p["radius"]).coloured(p["colour"])
    two = fields.Sphere(p["second_radius"]).translated(p["offset"]).coloured(p["second_colour"])
    turns = p["camera"].new_tensor(_CSG_VIEWS)
    axes = cameras.rotate_axes((p["camera"][0].expand(len(turns)), p["camera"][1] + turns))
    light = Lighting(ambient=0.2, headlight=0.3, fixed=0.5, direction=_LIGHT)
    return fields.SmoothUnion(one, two, p["blend"]), axes, light


def make_field(width: int) -> fields.FilmSirenSDF:
    """An untrained network for one shape, whose latent [1] is 0."""
    return fields.FilmSirenSDF(width=width, latent_size=1, mapping_width=8, omega_first=8.0, omega_texture=10.0)
