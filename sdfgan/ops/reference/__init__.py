"""What each operator of `sdfgan.ops` means, in plain torch, for reading, tests and benchmarks only.

The signatures are those of the operators; see there for shapes and dtypes.
"""

from .adam import lazy_adam
from .composite import composite
from .edges import layer_edges
from .encoding import positional_encoding
from .film_siren import film_siren, film_siren_sample
from .grid_march import grid_march
from .hash import hash_encoding
from .histogram import distortion_loss, interlevel_bounds, interlevel_loss
from .integrated import frustum_gaussians, integrated_directional_encoding, integrated_positional_encoding
from .layers import layer_step
from .mesh import mesh_distance, mesh_raycast
from .pdf import sample_pdf
from .perceptron import perceptron
from .pixels import sample_pixels
from .rays import generate_rays
from .trace import start_level, trace_step

__all__ = [
    "composite",
    "distortion_loss",
    "film_siren",
    "film_siren_sample",
    "frustum_gaussians",
    "generate_rays",
    "grid_march",
    "hash_encoding",
    "integrated_directional_encoding",
    "integrated_positional_encoding",
    "interlevel_bounds",
    "interlevel_loss",
    "layer_edges",
    "layer_step",
    "lazy_adam",
    "mesh_distance",
    "mesh_raycast",
    "perceptron",
    "positional_encoding",
    "sample_pdf",
    "sample_pixels",
    "start_level",
    "trace_step",
]
