"""The native module: what it says of itself, and its instruction sets against each other."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

import sdfgan
from sdfgan import _C, ops

PACKAGE = Path(sdfgan.__file__).parent


def test_build_info_is_complete():
    info = sdfgan.build_info()
    assert info["version"] == sdfgan.__version__
    assert info["simd"] in info["simd_compiled"]
    assert info["simd_compiled"][0] == "base"
    assert isinstance(info["openmp"], bool)
    assert info["cuda"] == bool(info["cuda_architectures"])
    assert all(arch.isdigit() for arch in info["cuda_architectures"])


def test_the_installed_version_is_the_packages():
    if (metadata.packages_distributions().get("sdfgan") or None) is None:
        pytest.skip("not installed")
    assert metadata.version("sdfgan") == sdfgan.__version__


def test_a_tree_that_is_not_installed_can_be_imported():
    """After `python setup.py build_ext --inplace` alone nothing knows of the package but the interpreter's path."""
    code = """
import importlib.metadata as metadata
def absent(name):
    raise metadata.PackageNotFoundError(name)
metadata.version = metadata.distribution = absent
import sdfgan, sdfgan.cli
print(sdfgan.build_info()["version"])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert run.returncode == 0 and run.stdout.strip() == sdfgan.__version__, run.stderr


def test_the_stub_has_the_kernels_and_their_parameters():
    """mypy reads sdfgan/_C.pyi where the operators call a kernel; the module says itself what each one takes."""
    (protocol,) = (node for node in ast.parse((PACKAGE / "_C.pyi").read_text()).body if ast_name(node) == "Kernels")
    stub = {ast_name(node): node.args for node in protocol.body if isinstance(node, ast.FunctionDef)}
    assert set(stub) == {name for name in dir(_C.f32) if not name.startswith("_")}
    for name, arguments in stub.items():
        named = ", ".join(f"{one.arg}: {ast.unparse(one.annotation)}" for one in arguments.kwonlyargs)
        assert getattr(_C.f32, name).__doc__.strip() == f"{name}(where, *, {named})"
        if name not in ("mesh_distance", "mesh_raycast"):
            assert getattr(_C.f64, name).__doc__ == getattr(_C.f32, name).__doc__


def ast_name(node: ast.AST) -> str | None:
    return getattr(node, "name", None)


def test_a_kernel_names_the_parameter_that_is_wrong():
    where, rows = (-1, 0, 1), torch.rand(2, 3)
    right = {"edges": rows, "others": rows, "weights": rows, "out": rows, "rays": 0, "bins": 2, "other_bins": 2}
    _C.f32.overlap_sums(where, **right)
    with pytest.raises(TypeError, match="missing: bins"):
        _C.f32.overlap_sums(where, **{name: value for name, value in right.items() if name != "bins"})
    with pytest.raises(TypeError, match=r"unknown: bin$"):
        _C.f32.overlap_sums(where, **right, bin=1)
    with pytest.raises(TypeError, match="a struct must be a dict"):
        _C.f32.march_count(where, march=(rows, rows), counts=rows, next=rows, most=1)


def test_instruction_sets_agree(assert_close):
    before = _C.simd()
    x = torch.randn(1001, 3)
    edges, weights = torch.rand(101, 18).sort(-1).values, torch.rand(101, 17)
    camera = torch.cat([torch.eye(3), torch.tensor([[0.1], [0.2], [4.5]])], 1)[None]
    results = {}
    try:
        for level in sdfgan.build_info()["simd_compiled"]:
            try:
                _C.set_simd(level)
            except ValueError as error:  # this CPU lacks it
                assert level in str(error)
                continue
            results[level] = (
                ops.positional_encoding(x, 6),
                ops.positional_encoding(x, 6, times_pi=True),
                ops.sample_pdf(edges, weights, 33),
                *ops.generate_rays(camera, torch.arange(77), 7, 11, 0.5),
            )
    finally:
        _C.set_simd(before)
    for result in results.values():
        for actual, expected in zip(result, results["base"], strict=True):
            assert_close(actual, expected)


@pytest.mark.parametrize(("level", "succeeds"), [("base", True), ("mmx", False)])
def test_environment_chooses_the_instruction_set(level, succeeds):
    code = "import sdfgan; print(sdfgan.build_info()['simd'])"
    environment = {**os.environ, "SDFGAN_SIMD": level}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    if succeeds:
        assert run.stdout.strip() == level
    else:
        assert "SDFGAN_SIMD: must be base, avx2, avx512 or avx512bf16 and known to this CPU, got mmx" in run.stderr


def test_kernels_work_in_a_forked_child():
    """libgomp's threads do not survive fork(); kernels must run serially there instead of hanging."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        x = torch.randn(100_000, 3)
        expected = ops.positional_encoding(x, 4)
        child = os.fork()
        if child == 0:
            import signal

            signal.alarm(20)
            same = bytes(ops.positional_encoding(x, 4).numpy().data) == bytes(expected.numpy().data)
            os._exit(0 if same else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        torch.set_num_threads(threads)


def test_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'sdfgan' has no attribute 'nonsense'"):
        _ = sdfgan.nonsense
    assert sdfgan.ops is ops
