"""`sdfgan doctor`: whether this installation works, what it should be able to do, and what to do where it does not."""

from __future__ import annotations

import importlib.metadata as metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sdfgan._version import VERSION
from sdfgan.cli.flags import DoctorConfig

State = Literal["ok", "note", "warning", "broken"]
_TIMEOUT = 10  # seconds for a program to tell its version
_GIB = 2**30
_LITTLE, _NOTHING = 2 * _GIB, _GIB // 10  # bytes free: a run may not fit; no checkpoint fits
_SIDE = 128  # pixels of the image that is timed
# ms for the default generator on one core that has nothing else to do (AMD EPYC); on a GPU launches, above all: an H200
# traces sixteen such images at width 256 in 2.5 ms as a graph
_EXPECTED = {"avx512bf16": 18.0, "avx512": 18.0, "avx2": 25.0, "base": 110.0, "cuda": 5.0}
_SLOW = 4.0  # times as long


class Finding(NamedTuple):
    """One thing that was looked at; `advice` says what to do."""

    topic: str
    state: State
    said: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.state:8}{self.topic}: {self.said}{f' -> {self.advice}' if self.advice else ''}"


def run(config: DoctorConfig) -> int:
    """Print the findings as they come, and a block for a bug report; 1 if something is broken."""
    found: list[Finding] = []
    for finding in examine():
        found.append(finding)
        if not config.json:
            print(finding, flush=True)
    broken = [finding for finding in found if finding.state == "broken"]
    if config.json:
        print(json.dumps({"ok": not broken, "findings": [finding._asdict() for finding in found]}, indent=2))
        return bool(broken)
    print(f"\n{len(broken)} broken\n" if broken else "\nnothing is broken\n")
    print("For a bug report, from here:\n```")
    for finding in found:
        if finding.topic not in ("kernels on cpu", "packages") or finding.state != "ok":
            print(_without_home(str(finding)))
    print("```")
    return bool(broken)


def examine() -> Iterator[Finding]:
    """All findings. What raises is a finding, too, so that the others are seen."""
    loads = True
    for topic, look in _TOPICS.items():
        try:
            yield from look()
        except Exception as error:  # whatever an installation that is broken raises
            said = " ".join(f"{type(error).__name__}: {error}".split())
            if isinstance(error, ImportError) and not loads:
                yield Finding(topic, "note", "not looked at, as the native module cannot be loaded")
                continue
            loads = loads and not isinstance(error, ImportError)
            yield Finding(topic, "broken", said, _advice(topic, said))


def _advice(topic: str, said: str) -> str:
    return "unset SDFGAN_SIMD, or name one of these" if "SDFGAN_SIMD" in said else _ADVICE.get(topic, "report this")


def _without_home(line: str) -> str:
    home = str(Path.home())
    return line.replace(home, "~") if len(home) > 1 else line


# ------------------------------------------------------------------------------------------------- what is installed


def _installation() -> Iterator[Finding]:
    from sdfgan import build_info

    info = build_info()
    place = Path(__file__).parents[1]
    yield Finding("sdfgan", "ok", f"{VERSION} in {place}, Python {platform.python_version()} ({sys.executable})")
    if platform.system() != "Linux":
        yield Finding("system", "note", f"{platform.platform()}: sdfgan is tried on Linux alone")
    else:
        yield Finding("system", "ok", f"{platform.platform()}, {os.cpu_count()} CPUs, {_processor()}")
    used, compiled = info["simd"], ", ".join(info["simd_compiled"])
    asked = os.environ.get("SDFGAN_SIMD")
    advice = "unset SDFGAN_SIMD for the best that this CPU has" if asked else ""
    yield Finding("instruction set", "note" if asked else "ok", f"{used} in use, of {compiled}", advice)
    if not info["openmp"]:
        advice = "install a compiler with OpenMP and build again"
        yield Finding("threads", "warning", "built without OpenMP: the CPU kernels use one thread", advice)
    else:
        import torch

        policy = os.environ.get("OMP_WAIT_POLICY", "not set")
        yield Finding("threads", "ok", f"{torch.get_num_threads()}, OMP_WAIT_POLICY {policy}")


def _packages() -> Iterator[Finding]:
    try:
        installed, required = metadata.version("sdfgan"), metadata.requires("sdfgan") or []
    except metadata.PackageNotFoundError:
        yield Finding("packages", "note", "sdfgan is not installed but on the path: requirements are not known")
        return
    if installed != VERSION:
        advice = "install again: pip install -e . in the checkout, or the wheel"
        yield Finding("packages", "broken", f"pip knows of version {installed}, this is {VERSION}", advice)
    found = []
    for wanted in (one for one in required if "extra ==" not in one):
        name, *least = re.findall(r"^[\w.-]+|(?<=>=)[\d.]+", wanted)
        advice = f'pip install "{wanted}"'
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            yield Finding("packages", "broken", f"{name} is missing", advice)
            continue
        if least and _numbers(metadata.version(name)) < _numbers(least[0]):
            yield Finding("packages", "broken", f"{found[-1]} is older than {least[0]}", advice)
    yield Finding("packages", "ok", ", ".join(found))


def _numbers(version: str) -> list[int]:
    """Its first two."""
    return [int(number) for number in re.findall(r"\d+", version)[:2]]


def _compiler() -> Iterator[Finding]:
    """Of use to build from source alone."""
    names = [os.environ.get("CXX"), "c++", "g++", "clang++"]
    compiler = next((path for name in names if name and (path := shutil.which(name))), None)
    if compiler is None:
        yield Finding("compiler", "note", "none: sdfgan cannot be built from source here", "apt-get install g++")
    else:
        yield Finding("compiler", "ok", f"{compiler}, {_first_line(compiler, '--version')}")
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        yield Finding("nvcc", "note", "none: a build from source has no CUDA kernels")
    else:
        yield Finding("nvcc", "ok", f"{nvcc}, {_last_line(nvcc, '--version')}")


def _gpu() -> Iterator[Finding]:
    import torch

    from sdfgan import build_info

    info, torch_cuda = build_info(), torch.version.cuda
    kernels = f"sm_{', sm_'.join(info['cuda_architectures'])}" if info["cuda"] else "no CUDA kernels"
    driver = _first_line("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    yield Finding("torch", "ok", f"{torch.__version__}, CUDA {torch_cuda or 'no'}; sdfgan has {kernels}")
    if not torch.cuda.is_available():
        if driver and torch_cuda is None:
            advice = "install the torch of https://pytorch.org for this CUDA"
            yield Finding("GPU", "warning", f"{driver}, but this torch is the build for CPUs", advice)
        elif driver:
            advice = f"a driver for CUDA {torch_cuda}, or a torch for the CUDA that nvidia-smi shows"
            yield Finding("GPU", "warning", f"{driver}, but torch cannot use it", advice)
        else:
            yield Finding("GPU", "ok", "none")
        return
    for index in range(torch.cuda.device_count()):
        (major, minor), name = torch.cuda.get_device_capability(index), torch.cuda.get_device_name(index)
        said = f"cuda:{index} {name}, sm_{major}{minor}, driver {driver or 'unknown'}"
        if not info["cuda"]:
            advice = "for much faster tracing build from source with nvcc: see docs/build.md"
            yield Finding("GPU", "warning", f"{said}: sdfgan has no CUDA kernels", advice)
        elif 10 * major + minor < min(map(int, info["cuda_architectures"])):
            advice = f'build with SDFGAN_CUDA_ARCHS="{major}{minor}"'
            yield Finding("GPU", "broken", f"{said}: sdfgan's kernels are for {kernels}", advice)
        else:
            yield Finding("GPU", "ok", said)


# ------------------------------------------------------------------------------------------------ whether it works


def _devices() -> list[str]:
    import torch

    from sdfgan import build_info

    return ["cpu", *(["cuda"] if torch.cuda.is_available() and build_info()["cuda"] else [])]


def _kernels() -> Iterator[Finding]:
    from sdfgan import selftest

    for device in _devices():
        results = list(selftest.run(device))
        for one in results:
            if not one.passed:
                said = one.raised or f"is off by {one.error:.2g}, expected at most {one.limit:.2g}"
                advice = "report this; SDFGAN_SIMD=base may avoid it" if device == "cpu" else "report this"
                yield Finding(f"kernels on {device}", "broken", f"{one.name} {said}", advice)
        right = sum(one.passed for one in results)
        yield Finding(f"kernels on {device}", "ok", f"{right} of {len(results)} checks agree with their definitions")


def _speed() -> Iterator[Finding]:
    """The time of an image of the default generator, untrained, on one thread and on all."""
    import torch

    from sdfgan import build_info, cameras, fields, raycast

    for device in _devices():
        field = fields.FilmSirenSDF().to(device)
        axes = cameras.rotate_axes((torch.tensor([0.3]), torch.tensor([0.5]))).to(device)
        latents = torch.zeros(1, field.latent_size, device=device)

        def trace(field: Any = field, axes: Any = axes, latents: Any = latents) -> None:
            queries = raycast.multiscale(axes, (_SIDE // 4, 4), latents, field).queries
            int(queries)  # waits for a GPU

        threads, times = torch.get_num_threads(), {}
        for count in sorted({1, threads}) if device == "cpu" else [1]:
            torch.set_num_threads(count)
            try:
                times[count] = _best_ms(trace)
            finally:
                torch.set_num_threads(threads)
        usual = _EXPECTED["cuda" if device == "cuda" else build_info()["simd"]]
        by = ", ".join(f"{ms:.1f} ms{f' on {count} threads' if count > 1 else ''}" for count, ms in times.items())
        said = f"{_SIDE} x {_SIDE} pixels of the default generator: {by}; usual: {usual:g} ms alone on one core"
        if device == "cuda":
            said = said.replace(" alone on one core", "")
        if times[1] > _SLOW * usual:
            load = f" (load {os.getloadavg()[0]:.0f} on {os.cpu_count()} CPUs)" if hasattr(os, "getloadavg") else ""
            advice = f"other processes{load}, a slow clock or a virtual machine may be why; see docs/training-runs.md"
            yield Finding(f"speed on {device}", "warning", said, advice)
        elif threads > 1 and times.get(threads, 0) > 1.5 * times[1]:
            advice = "unset OMP_WAIT_POLICY and GOMP_SPINCOUNT, or OMP_NUM_THREADS=1 beside other processes"
            yield Finding(f"speed on {device}", "warning", f"{said}: threads only wait", advice)
        else:
            yield Finding(f"speed on {device}", "ok", said)


def _best_ms(function: Callable[[], None], rounds: int = 5) -> float:
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return 1e3 * min(times)


def _disk() -> Iterator[Finding]:
    from sdfgan.data.shapes import default_cache_folder

    yield _folder("current folder", Path.cwd(), "change to a folder that you may write to, or give --output-dir")
    yield _folder("cache folder", default_cache_folder(), "set SDFGAN_CACHE to a folder that you may write to")


def _folder(topic: str, folder: Path, advice: str) -> Finding:
    """Whether a file can be written there, and how much more."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    probe = there / f".sdfgan-doctor-{os.getpid()}"
    try:
        try:
            probe.write_bytes(bytes(2**20))
        finally:
            probe.unlink(missing_ok=True)
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding(topic, "broken", f"{folder}: {error.strerror}", advice)
    said = f"{folder}: {free / _GIB:.1f} GiB free"
    if free < _LITTLE:
        state: State = "broken" if free < _NOTHING else "warning"
        return Finding(topic, state, said, f"make room: a run needs up to {_LITTLE / _GIB:g} GiB")
    return Finding(topic, "ok", said)


def _video() -> Iterator[Finding]:
    from sdfgan.images import video_problem

    if video_problem(Path("video.mp4")) is None:
        yield Finding("video", "ok", "ffmpeg is there")
    else:
        advice = "pip install imageio-ffmpeg, or --video-format gif"
        yield Finding("video", "warning", "no ffmpeg: .mp4 cannot be written", advice)


# ---------------------------------------------------------------------------------------------------- the machine


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.M)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _lines(*command: str) -> list[str]:
    """What a program prints; nothing where it is not there, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def _first_line(*command: str) -> str:
    return next(iter(_lines(*command)), "")


def _last_line(*command: str) -> str:
    return next(iter(_lines(*command)[-1:]), "")


_TOPICS = {
    "installation": _installation,
    "packages": _packages,
    "compiler": _compiler,
    "GPU": _gpu,
    "kernels": _kernels,
    "speed": _speed,
    "disk": _disk,
    "video": _video,
}
_ADVICE = {  # where the look itself failed
    "installation": "torch or the native module cannot be loaded: install again, see docs/build.md",
}
