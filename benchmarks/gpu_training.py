"""Training on a GPU, for seconds: how fast a GAN's step is and where its time goes, a scene, a mesh with each preset.

python benchmarks/gpu_training.py gan
python benchmarks/gpu_training.py nerf --scene lego/ --seconds 35
python benchmarks/gpu_training.py sdf --mesh fandisk.obj
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from gpu_records import keep, parser

_REALS = 256  # pictures that the GAN sees; how many does not matter to its speed
_WARM_UP = 8  # steps of the GAN; R1 comes every 8
_GAN_SECONDS = 4.0  # of steps that are timed
_PROFILED = 2  # steps: the profiler takes seconds for each to sum up its events
_ROWS = 12  # of the tables of the profiler
_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy", "aten::item")
_NERF_STEPS = 5000  # at most: the default
_CAUTION = 0.8  # of the steps that a time seems to allow
_GOAL = 32.0  # dB
_TINY_GAN = {"resolution": 16, "batch_size": 4, "width": 32, "march_steps": 8}
_TINY_SDF = {"num_points": 5000, "epochs": 1, "batch_size": 1000, "mesh_resolution": 24, "finest": 16}
_TINY_NERF = {"rays": 256, "samples": 2**12, "grid_resolution": 16, "march_steps": 64, "evaluate_views": 1}


def main() -> None:
    """One of the three."""
    given = parser(__doc__)
    given.add_argument("what", choices=("gan", "nerf", "sdf"))
    given.add_argument("--quick", action="store_true", help="tiny: does it work?")
    given.add_argument("--scene", type=Path, help="folder of a scene (nerf)")
    given.add_argument("--seconds", type=float, default=35.0, help="of training (nerf; default: %(default)s)")
    given.add_argument("--mesh", type=Path, help="file (sdf; default: a torus)")
    given.add_argument("--pictures", type=Path, default=Path("."), help="folder for pictures (default: this one)")
    given.add_argument("--scratch", type=Path, help="folder for runs, which is kept (default: a temporary one)")
    arguments = given.parse_args()
    if arguments.what == "nerf" and arguments.scene is None:
        given.error("nerf: --scene is needed")
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        {"gan": gan, "nerf": nerf, "sdf": sdf}[arguments.what](arguments, Path(scratch))


def gan(arguments: argparse.Namespace, scratch: Path) -> None:
    """Steps per second at the device's defaults, and what a step consists of."""
    from sdfgan.data.shapes import render_shapes
    from sdfgan.gan import GanConfig
    from sdfgan.gan.data import TrainingData
    from sdfgan.gan.job import GanJob

    config = GanConfig(device=arguments.device, **(_TINY_GAN if arguments.quick else {})).resolved()
    begin = time.perf_counter()
    reals = render_shapes(16 if arguments.quick else _REALS, config.resolution or 0).images
    print(f"{len(reals)} real pictures of the built-in set, made in {time.perf_counter() - begin:.1f} s")
    settings = {"resolution": config.resolution, "batch": config.batch_size, "width": config.width}
    for graphs in (False, True) if arguments.device == "cuda" else (False,):
        job = GanJob(dataclasses.replace(config, cuda_graphs=graphs), TrainingData.of(reals))
        for number in range(1 if arguments.quick else _WARM_UP):
            begin = time.perf_counter()
            job.step()
            print(f"step {number}: {time.perf_counter() - begin:.3f} s", flush=True)
        times = _timed(job.step, arguments.device, 0.5 if arguments.quick else _GAN_SECONDS)
        rate = 1 / statistics.mean(times)
        numbers: dict[str, Any] = {
            "steps_per_s": rate, "median_ms": 1e3 * statistics.median(times), "slowest_ms": 1e3 * max(times)
        }  # fmt: skip
        if arguments.device == "cuda":
            numbers["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        variant = "step, graphs" if graphs else "step"
        print(f"GAN {settings}, {config.precision}, {variant}: {rate:.2f} steps/s, {numbers}", flush=True)
        keep(arguments, "gan", variant, settings, **numbers)
    while not arguments.quick and job.steps_done % config.r1_interval:
        job.step()
    for name in ("a step with R1", "a step without"):
        print(name)
        numbers = profile(job.step, 1, arguments.device)
        keep(arguments, "gan", f"profile of {name}", settings, **numbers)
    job.close()


def _timed(run: Callable[[], object], device: str, seconds: float) -> list[float]:
    """Of runs within that time, each until the device is done."""
    times: list[float] = []
    while sum(times) < seconds:
        begin = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return times


def profile(run: Callable[[], object], runs: int, device: str) -> dict[str, Any]:
    """Print where the time of a run goes, by the device's clock and by the host's; returns counts and sums of one."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    cuda = [ProfilerActivity.CUDA] if device == "cuda" else []
    with profiler(activities=[ProfilerActivity.CPU, *cuda]) as profiled:
        for _ in range(runs):
            run()
        if device == "cuda":
            torch.cuda.synchronize()
    events = profiled.key_averages()
    # A user's annotation (Optimizer.step) spans kernels that are there themselves.
    kernels = [event for event in events if event.device_type == DeviceType.CUDA and not event.is_user_annotation]
    host = [event for event in events if event.device_type == DeviceType.CPU]
    ops = [event for event in host if event.key.startswith(("aten::", "sdfgan::"))]
    _print_top("kernels", kernels, "self_device_time_total", runs)
    _print_top("operators by device time", ops, "self_device_time_total", runs)
    _print_top("host time", host, "self_cpu_time_total", runs)
    counts = {event.key: event.count / runs for event in host}
    numbers: dict[str, Any] = {
        "kernels": sum(event.count for event in kernels) / runs,
        "launches": sum(count for name, count in counts.items() if name.startswith(("cudaLaunch", "cuLaunch"))),
        "operators": sum(event.count for event in ops) / runs,
        "device_ms": sum(event.self_device_time_total for event in kernels) / runs / 1e3,
        "host_ms": sum(event.self_cpu_time_total for event in host) / runs / 1e3,
        **{name: counts.get(name, 0) for name in _WAITS},
    }
    print("per run: " + ", ".join(f"{name} {value:.4g}" for name, value in numbers.items()), flush=True)
    return numbers


def _print_top(title: str, events: Iterable[Any], time_of: str, runs: int) -> None:
    print(f"{title}: ms of one run, calls, name")
    for event in sorted(events, key=lambda event: -getattr(event, time_of))[:_ROWS]:
        print(f"  {getattr(event, time_of) / runs / 1e3:9.3f} {event.count / runs:8.1f}  {event.key[:100]}")


def nerf(arguments: argparse.Namespace, scratch: Path) -> None:
    """The default model, with as many steps as the time allows, up to its default."""
    from sdfgan.nerf import NerfConfig, train

    settings = {"video_frames": 0, "mesh_resolution": 0, **(_TINY_NERF if arguments.quick else {})}
    config = NerfConfig(data=arguments.scene, device=arguments.device, **settings)
    steps = 10 if arguments.quick else _steps_within(arguments, config)
    begin = time.perf_counter()
    run = scratch / "nerf"
    looks = {"checkpoint_interval": steps, "evaluate_interval": max(1, steps // 3)}
    summary = train(dataclasses.replace(config, steps=steps, output_dir=run, **looks))
    (scores,) = summary["scores"].values()
    seconds = summary["training_seconds"]
    print(f"PSNR {scores['psnr']:.2f} dB after {steps} steps in {seconds} s (goal: {_GOAL} dB in 60 s)")
    numbers = {"steps": steps, "training_s": seconds, "all_s": time.perf_counter() - begin, **scores}
    keep(arguments, "nerf", config.model, {"scene": arguments.scene.name}, **numbers)
    with suppress(FileNotFoundError):
        shutil.copy(run / "views.png", arguments.pictures / "nerf-views.png")


def _steps_within(arguments: argparse.Namespace, config: Any) -> int:
    """From the rate of some steps after the occupancy grid has been made sparse, which are profiled too."""
    from sdfgan.data.scenes import load_scene
    from sdfgan.nerf.job import NerfJob

    resolved = dataclasses.replace(config, steps=_NERF_STEPS).resolved()
    scene = load_scene(resolved.scene, image_scale=resolved.image_scale, scene_scale=resolved.scene_scale)
    job = NerfJob(resolved, scene)
    try:
        for _ in range(60):
            job.step()
        times = _timed(job.step, resolved.device.split(":")[0], min(2.0, arguments.seconds / 10))
        numbers = profile(job.step, _PROFILED, resolved.device.split(":")[0])
    finally:
        job.close()
    rate = 1 / statistics.mean(times)
    keep(arguments, "nerf", "profile of a step", {"scene": arguments.scene.name}, steps_per_s=rate, **numbers)
    steps = max(10, min(_NERF_STEPS, int(_CAUTION * rate * arguments.seconds)))
    print(f"{rate:.1f} steps/s: {steps} steps", flush=True)
    return steps


def sdf(arguments: argparse.Namespace, scratch: Path) -> None:
    """`train-sdf` with each preset: times, and how good the mesh is."""
    from sdfgan.sdf import train
    from sdfgan.sdf.config import PRESETS, SdfConfig

    mesh = arguments.mesh or write_torus(scratch / "torus.obj")
    failed = []
    for preset in PRESETS[True]:
        settings = {"input": mesh, "preset": preset, "output_dir": scratch / preset, "device": arguments.device}
        try:
            summary = train(SdfConfig(**settings, **(_TINY_SDF if arguments.quick else {})))
        except Exception as error:  # the other presets go on
            failed.append(preset)
            print(f"{preset}: FAILED: {type(error).__name__}: {error}", flush=True)
            continue
        numbers = {name: value for name, value in summary.items() if name.endswith("_seconds")}
        numbers |= {name: value for name, value in summary["metrics"].items() if isinstance(value, float)}
        shown = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        print(f"{preset}: {shown}", flush=True)
        keep(arguments, "sdf", preset, {"mesh": mesh.stem}, **numbers)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def write_torus(path: Path) -> Path:
    """As a Wavefront file."""
    from torus import torus

    vertices, faces = torus()
    lines = [f"v {x} {y} {z}" for x, y, z in vertices.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (faces + 1).tolist()]
    path.write_text("\n".join(lines) + "\n")
    return path


if __name__ == "__main__":
    main()
