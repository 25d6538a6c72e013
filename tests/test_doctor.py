"""`sdfgan doctor`: what it says of a sound installation, and of broken ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import sdfgan
from sdfgan import ops, selftest
from sdfgan.cli import doctor, main


def look(monkeypatch: pytest.MonkeyPatch, *topics: str) -> None:
    """Leave only these topics."""
    monkeypatch.setattr(doctor, "_TOPICS", {topic: doctor._TOPICS[topic] for topic in topics})


def test_a_sound_installation(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ok"]
    topics = {one["topic"] for one in said["findings"]}
    assert {"sdfgan", "torch", "instruction set", "kernels on cpu", "speed on cpu", "cache folder"} <= topics
    kernels = next(one["said"] for one in said["findings"] if one["topic"] == "kernels on cpu")
    passed, of = (int(word) for word in kernels.split()[:3:2])
    assert passed == of >= 30
    assert all(one["advice"] for one in said["findings"] if one["state"] in ("warning", "broken"))


def test_every_operator_is_checked() -> None:
    """By name, except for what other checks need."""
    words = {word for result in selftest.run("cpu") for word in result.name.replace(",", "").split()}
    others = {"pack_matrices", "pixel_views", "mesh_tree", "hash_table_begins"}
    others |= {"kernels_on"}  # no operator: the threads of all
    others |= {"start_layers", "start_march"}  # the states from which layer_step and trace_step go on
    others |= {"film_siren_variation"}  # zeros, with the gradient of film_siren
    # the kernels of hash_encoding's and perceptron's own gradients
    others |= {"hash_encoding_gradient", "hash_table_gradient", "perceptron_gradients"}
    assert {name for name in ops.__all__ if name.islower()} - others <= words


def test_a_kernel_that_lies(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    right = ops.positional_encoding
    monkeypatch.setattr(ops, "positional_encoding", lambda *given, **more: right(*given, **more) + 1e-3)

    def refuse(*given: Any, **more: Any) -> None:
        raise RuntimeError("no kernel image\nis available")

    monkeypatch.setattr(ops, "sample_pdf", refuse)
    look(monkeypatch, "kernels")
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "broken  kernels on cpu: positional_encoding is off by 0.0" in out and "expected at most 3e-05 -> " in out
    assert "broken  kernels on cpu: sample_pdf RuntimeError: no kernel image is available -> " in out
    assert "\n2 broken\n" in out and out.count("positional_encoding is off") == 2, "also in the block for a bug report"


def test_an_instruction_set_that_is_none() -> None:
    """What cannot be looked at then is no fault of its own."""
    environment = {**os.environ, "SDFGAN_SIMD": "nonsense"}
    done = subprocess.run(
        [sys.executable, "-m", "sdfgan", "doctor"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 1 and "\n1 broken\n" in done.stdout and not done.stderr
    first = done.stdout.splitlines()[0]
    assert first.startswith("broken  installation: ") and first.endswith("-> unset SDFGAN_SIMD, or name one of these")
    assert "note    kernels: not looked at, as the native module cannot be loaded\n" in done.stdout


def test_no_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Usage(NamedTuple):
        free: int

    look(monkeypatch, "disk")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SDFGAN_CACHE", str(tmp_path / "not" / "there"))
    for free, state, status in ((2**20, "broken", 1), (2**30, "warning", 0), (2**40, "ok", 0)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: Usage(free))
        assert main(["doctor"]) == status
        out = capsys.readouterr().out
        assert (
            f"{state:8}current folder: {tmp_path}: " in out and f"{state:8}cache folder: {tmp_path}/not/there: " in out
        )
        assert ("make room" in out) == (state != "ok")
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
    (tmp_path / "file").touch()
    monkeypatch.setenv("SDFGAN_CACHE", str(tmp_path / "file" / "cache"))
    assert main(["doctor"]) == 1
    assert "/file/cache: Not a directory -> set SDFGAN_CACHE" in capsys.readouterr().out


def test_a_native_module_that_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ImportError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(sdfgan, "build_info", fail, raising=False)
    look(monkeypatch, "installation", "compiler")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "broken  installation: ImportError: libgomp.so.1: cannot open shared object file -> torch or the" in out
    assert "note    compiler: none: sdfgan cannot be built from source here -> apt-get install g++" in out


def test_packages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    installed = {"sdfgan": sdfgan.__version__, "torch": "2.5.1+cpu", "imageio": "2.100.0"}

    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    look(monkeypatch, "packages")
    monkeypatch.setattr(metadata, "version", version)
    needs = ["torch>=2.6", "imageio[ffmpeg]>=2.31", "tyro", 'viser>=1.1; extra == "viewer"']
    monkeypatch.setattr(metadata, "requires", lambda name: needs)
    assert main(["doctor"]) == 1
    first, second, third, *_ = capsys.readouterr().out.splitlines()
    assert first == 'broken  packages: torch 2.5.1+cpu is older than 2.6 -> pip install "torch>=2.6"'
    assert second == 'broken  packages: tyro is missing -> pip install "tyro"'
    assert third == "ok      packages: torch 2.5.1+cpu, imageio 2.100.0"
    installed |= {"sdfgan": "0.0.1", "torch": "2.13.0", "tyro": "1"}
    assert main(["doctor"]) == 1
    assert "pip knows of version 0.0.1, this is" in capsys.readouterr().out
    del installed["sdfgan"]
    assert main(["doctor"]) == 0
    assert "note    packages: sdfgan is not installed but on the path" in capsys.readouterr().out


def test_gpus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Of machines that this one is not."""
    look(monkeypatch, "GPU")
    monkeypatch.setattr(doctor, "_lines", lambda *command: ["Tesla P100, 550.1"])
    info = sdfgan.build_info()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert main(["doctor"]) == 0
    assert "warning GPU: Tesla P100, 550.1, but this torch is the build for CPUs -> " in capsys.readouterr().out
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert main(["doctor"]) == 0
    assert "but torch cannot use it -> a driver for CUDA 13.0" in capsys.readouterr().out
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Tesla P100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (6, 0))
    for cuda, architectures, status, said in (
        (False, [], 0, "sdfgan has no CUDA kernels -> "),
        (True, ["75", "90"], 1, 'sdfgan\'s kernels are for sm_75, sm_90 -> build with SDFGAN_CUDA_ARCHS="60"'),
    ):
        changed = {**info, "cuda": cuda, "cuda_architectures": architectures}
        monkeypatch.setattr(sdfgan, "build_info", lambda changed=changed: changed, raising=False)
        assert main(["doctor"]) == status
        assert said in capsys.readouterr().out
