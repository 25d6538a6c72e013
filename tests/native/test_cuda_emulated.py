"""The CUDA kernels, run on the CPU by tests/native/emulated, against the reference and the CPU kernels."""

from __future__ import annotations

import importlib.util
import math
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from sdfgan import cameras, ops
from sdfgan.ops import FilmSirenNetwork, MarchRules, RayStatus, TraceLevel, reference
from sdfgan.raycast.levels import march_levels, seed_levels

ROOT = Path(__file__).parents[2]
MATRICES = {"fp32": 0, "fp16": 2}
HOPPER, AMPERE, TURING = 0, 1, 2  # the emulated devices: the second has less shared memory, the third no tensor cores

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(platform.system() != "Linux", reason="emulation is tried on Linux"),
    pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("ninja")), reason="needs cmake and ninja"),
]


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    folder = Path(os.environ.get("SDFGAN_EMULATED", tmp_path_factory.mktemp("emulated")))
    pybind11 = run(sys.executable, "-m", "pybind11", "--cmakedir").strip()
    switches = ["-DSDFGAN_CUDA=EMULATED", "-DCMAKE_BUILD_TYPE=Release", f"-Dpybind11_DIR={pybind11}"]
    run("cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(folder), f"-DPython_EXECUTABLE={sys.executable}", *switches)
    run("cmake", "--build", str(folder), "--parallel", str(os.cpu_count() or 1))
    (library,) = folder.glob("_C.*so")
    spec = importlib.util.spec_from_file_location("_C", library)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*command: str) -> str:
    """The output; an AssertionError with all of it where the command fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Network:
    """Random weights of the size that an initialised FiLM-SIREN has; the sdf is near that of a ball."""

    def __init__(self, images: int, width: int, layers: tuple[int, int, int], seed: int = 0) -> None:
        g = torch.Generator().manual_seed(seed)

        def uniform(*shape: int) -> Tensor:
            return 2 * torch.rand(shape, generator=g) - 1

        self.layers = layers
        self.matrices = uniform(sum(layers) - 1, width, width) * (6 / width) ** 0.5 / 10
        self.rest = (
            uniform(width) * 0.3 / width**0.5,
            uniform(3, width) / width**0.5,
            torch.tensor([0.01, -0.5]),
            10 + 3 * uniform(images, sum(layers), width),
            3 * uniform(images, sum(layers), width),
        )
        self.first = uniform(width, 3) / 3

    def on_cpu(self) -> FilmSirenNetwork:
        hidden = ops.pack_matrices(self.matrices)
        transposed = ops.pack_matrices(self.matrices.transpose(1, 2).contiguous())
        return FilmSirenNetwork(self.first, hidden, transposed, *self.rest, layers=self.layers)

    def on_cuda(self, precision: str) -> tuple:
        """What the native module takes, and the tensors it points to."""
        hidden = ops.pack_matrices(self.matrices, precision, "cuda")
        tensors = (self.first, hidden, hidden, *self.rest)
        images, width = len(self.rest[-1]), len(self.first)
        return ([t.data_ptr() for t in tensors], images, width, list(self.layers), MATRICES[precision]), tensors


def sample(
    emulated: ModuleType, device: int, net: Network, precision: str, points: Tensor, image: Tensor, gradient: bool
) -> tuple[Tensor, Tensor, Tensor]:
    described, _kept = net.on_cuda(precision)
    sdf, slopes, texture = torch.full((len(points),), 9e9), torch.full_like(points, 9e9), torch.full_like(points, 9e9)
    outputs = [t.data_ptr() if gradient or t is sdf else 0 for t in (sdf, slopes, texture)]
    emulated.f32.film_siren((device, 0, 0), described, points.data_ptr(), image.data_ptr(), *outputs, len(points))
    return sdf, slopes, texture


def exact(net: Network, points: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    on_cpu = net.on_cpu()
    double = FilmSirenNetwork(*(t.double() for t in on_cpu[:-1]), on_cpu.layers)
    return reference.film_siren_sample(points.double(), image, double)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(
    ("width", "layers", "device", "counts"),
    [
        (64, (3, 1, 1), HOPPER, [70, 3, 210]),
        (64, (1, 1, 0), HOPPER, [1]),
        (128, (2, 2, 1), HOPPER, [40, 0, 30]),
        (128, (3, 2, 1), AMPERE, [290]),
        (256, (2, 1, 2), AMPERE, [9, 30]),
    ],
)
def test_samples_match_the_reference(emulated, precision, width, layers, device, counts):
    net = Network(len(counts), width, layers)
    image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    points = 2 * torch.rand(len(image), 3, generator=torch.Generator().manual_seed(1)) - 1
    expected = exact(net, points, image)
    actual = sample(emulated, device, net, precision, points, image, gradient=True)
    alone, *untouched = sample(emulated, device, net, precision, points, image, gradient=False)
    assert all((values == 9e9).all() for values in untouched)
    for a, e in zip((*actual, alone), (*expected, expected[0]), strict=True):
        error = (a.double() - e).abs().max()
        print(precision, width, layers, float(error), float(e.abs().max()))
        assert error < (2e-5 if precision == "fp32" else 4e-3) * e.abs().max()
