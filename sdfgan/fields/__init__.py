"""Signed-distance fields: distance, gradient and colour at points."""

from sdfgan.fields.analytic import (
    AnalyticField,
    Coloured,
    Intersection,
    SmoothIntersection,
    SmoothSubtraction,
    SmoothUnion,
    Subtraction,
    Transformed,
    Union,
    rotation_matrix,
)
from sdfgan.fields.base import Field, FieldSample, eikonal_loss
from sdfgan.fields.coordinate import CoordinateSDF, FixedLatent, Perceptron, PositionalEncoding
from sdfgan.fields.dfr import DfrSDF
from sdfgan.fields.film_siren import FilmSirenSDF
from sdfgan.fields.hash_grid import HashGrid
from sdfgan.fields.mlp import MlpSDF
from sdfgan.fields.pi_gan import PiGanField
from sdfgan.fields.primitives import Box, Capsule, Cone, Cylinder, Ellipsoid, Plane, RoundedBox, Sphere, Torus

__all__ = [
    "AnalyticField",
    "Box",
    "Capsule",
    "Coloured",
    "Cone",
    "CoordinateSDF",
    "Cylinder",
    "DfrSDF",
    "Ellipsoid",
    "Field",
    "FieldSample",
    "FilmSirenSDF",
    "FixedLatent",
    "HashGrid",
    "Intersection",
    "MlpSDF",
    "Perceptron",
    "PiGanField",
    "Plane",
    "PositionalEncoding",
    "RoundedBox",
    "SmoothIntersection",
    "SmoothSubtraction",
    "SmoothUnion",
    "Sphere",
    "Subtraction",
    "Torus",
    "Transformed",
    "Union",
    "eikonal_loss",
    "rotation_matrix",
]
