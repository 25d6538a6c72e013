"""What the native module `sdfgan._C` holds and which of it is in use."""

from __future__ import annotations

from typing import Any

import torch  # noqa: F401  first: the native module then shares torch's OpenMP runtime

import sdfgan._C as _C

from ._version import VERSION


def build_info() -> dict[str, Any]:
    """Version of the package and contents of its native build.

    Returns:
        `version`; `cuda`, whether CUDA kernels were compiled, and `cuda_architectures`, for which ("90" is
        sm_90); `simd_compiled`, the instruction sets of the CPU kernels, and `simd`, the one in use (the best
        that this CPU has, unless the environment variable SDFGAN_SIMD names another); `bf16`, whether this CPU
        multiplies bfloat16; `openmp`, whether CPU kernels use more than one thread.
    """
    return {
        "version": VERSION,
        "cuda": _C.cuda,
        "cuda_architectures": [arch for arch in _C.cuda_architectures.split(",") if arch],
        "simd_compiled": _C.simd_levels.split(","),
        "simd": _C.simd(),
        "bf16": _C.has_bf16(),
        "openmp": _C.openmp,
    }
