"""The network that learns a mesh."""

from __future__ import annotations

from sdfgan import fields


def make_field(width: int) -> fields.FilmSirenSDF:
    """An untrained network for one shape, whose latent [1] is 0."""
    return fields.FilmSirenSDF(width=width, latent_size=1, mapping_width=8, omega_first=8.0, omega_texture=10.0)
