"""Training data: the built-in set of procedurally made shapes and the loaders of images."""

from sdfgan.data.shapes import SHAPE_CLASSES, SHAPE_FAMILIES, ShapeSet, random_shapes, render_shapes, shape_set

__all__ = ["SHAPE_CLASSES", "SHAPE_FAMILIES", "ShapeSet", "random_shapes", "render_shapes", "shape_set"]
