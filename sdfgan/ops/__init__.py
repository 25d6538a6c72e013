"""The package's kernels as torch operators: on CPU and CUDA, under autograd and torch.compile.

`sdfgan.ops.reference` has the same functions in plain torch; it says what each op means.
"""

from ._library import kernels_on
from .adam import lazy_adam
from .composite import Composited, composite
from .edges import LayerEdges, layer_edges
from .encoding import positional_encoding
from .film_siren import (
    CUDA_WIDTHS,
    FilmSirenNetwork,
    Mirror,
    film_siren,
    film_siren_sample,
    film_siren_variation,
    pack_matrices,
)
from .film_siren_trace import film_siren_trace
from .grid_march import GridMarch, MarchSamples, march_count, march_reached, march_samples
from .hash import hash_encoding, hash_encoding_gradient, hash_table_begins, hash_table_gradient
from .histogram import distortion_loss, interlevel_loss
from .integrated import frustum_gaussians, integrated_directional_encoding, integrated_positional_encoding
from .layers import LAYER_STEPS, LayerSearch, layer_step, start_layers
from .mesh import MeshDistance, MeshHits, MeshTree, mesh_distance, mesh_raycast, mesh_tree
from .pdf import sample_pdf
from .perceptron import perceptron, perceptron_gradients
from .pixels import PixelSamples, PixelViews, pixel_views, sample_pixels, valid_pixels
from .rays import generate_rays
from .trace import LayerState, LevelRays, MarchRules, RayStatus, TraceLevel, start_level, start_march, trace_step

__all__ = [
    "CUDA_WIDTHS",
    "LAYER_STEPS",
    "Composited",
    "FilmSirenNetwork",
    "GridMarch",
    "LayerEdges",
    "LayerSearch",
    "LayerState",
    "LevelRays",
    "MarchRules",
    "MarchSamples",
    "MeshDistance",
    "MeshHits",
    "MeshTree",
    "Mirror",
    "PixelSamples",
    "PixelViews",
    "RayStatus",
    "TraceLevel",
    "composite",
    "distortion_loss",
    "film_siren",
    "film_siren_sample",
    "film_siren_trace",
    "film_siren_variation",
    "frustum_gaussians",
    "generate_rays",
    "hash_encoding",
    "hash_encoding_gradient",
    "hash_table_begins",
    "hash_table_gradient",
    "integrated_directional_encoding",
    "integrated_positional_encoding",
    "interlevel_loss",
    "kernels_on",
    "layer_edges",
    "layer_step",
    "lazy_adam",
    "march_count",
    "march_reached",
    "march_samples",
    "mesh_distance",
    "mesh_raycast",
    "mesh_tree",
    "pack_matrices",
    "perceptron",
    "perceptron_gradients",
    "pixel_views",
    "positional_encoding",
    "sample_pdf",
    "sample_pixels",
    "start_layers",
    "start_level",
    "start_march",
    "trace_step",
    "valid_pixels",
]
