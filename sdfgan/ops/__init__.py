"""The package's kernels as torch operators: on CPU and CUDA, under autograd and torch.compile.

`sdfgan.ops.reference` has the same functions in plain torch; it says what each op means.
"""

from .encoding import positional_encoding
from .film_siren import (
    CUDA_WIDTHS,
    FilmSirenNetwork,
    film_siren,
    film_siren_sample,
    film_siren_trace,
    pack_matrices,
)
from .hash import hash_encoding, hash_table_begins
from .mesh import MeshDistance, MeshTree, mesh_distance, mesh_tree
from .pdf import sample_pdf
from .perceptron import pack_perceptron, perceptron
from .rays import generate_rays
from .trace import LayerState, LevelRays, MarchRules, RayStatus, TraceLevel, start_level, start_march, trace_step

__all__ = [
    "CUDA_WIDTHS",
    "FilmSirenNetwork",
    "LayerState",
    "LevelRays",
    "MarchRules",
    "MeshDistance",
    "MeshTree",
    "RayStatus",
    "TraceLevel",
    "film_siren",
    "film_siren_sample",
    "film_siren_trace",
    "generate_rays",
    "hash_encoding",
    "hash_table_begins",
    "mesh_distance",
    "mesh_tree",
    "pack_matrices",
    "pack_perceptron",
    "perceptron",
    "positional_encoding",
    "sample_pdf",
    "start_level",
    "start_march",
    "trace_step",
]
