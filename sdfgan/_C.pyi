# The native module (csrc/bindings.cpp).
class _Kernels:
    """Kernels of one dtype; each takes (device or -1 for the CPU, stream, threads), then addresses."""

    def __getattr__(self, name: str) -> object: ...

f32: _Kernels
f64: _Kernels
openmp: bool
simd_levels: str
cuda: bool
cuda_architectures: str

def simd() -> str: ...
def set_simd(level: str) -> None: ...
def trace_step_workspace(device: int, entries: int) -> int: ...
