"""The package's kernels as torch operators: on CPU and CUDA, under autograd and torch.compile.

`sdfgan.ops.reference` has the same functions in plain torch; it says what each op means.
"""

from .encoding import positional_encoding
from .film_siren import film_siren
from .pdf import sample_pdf
from .rays import generate_rays
from .trace import RayStatus, trace_step

__all__ = ["RayStatus", "film_siren", "generate_rays", "positional_encoding", "sample_pdf", "trace_step"]
