"""Memory and time of a training step by the number of pictures: one graph against pieces.

    python benchmarks/memory.py
    python benchmarks/memory.py --images 16 32 --resolution 128 --width 256 --budget 256

Each case runs in a process of its own, which tells how much its peak of resident memory grew during the second step
(the first one loads libraries); then both modes alternate in one process, on one thread, for the ratio of times.
The loss is that of the pictures, of the eikonal term on their samples and on random points.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from blobs import blobs
from measure import environment
from sdfgan import cameras, raycast

_PAGE = 4096


def make_step(images: int, resolution: int, width: int, memory: str, budget: int | None) -> Callable[[], float]:
    """A step that gives the loss; gradients are in the field's parameters afterwards."""
    field, latents = blobs(width, quick=True)
    field.requires_grad_()
    latents = latents[torch.arange(images) % len(latents)]
    axes = cameras.rotate_axes((torch.linspace(-0.4, 0.9, images), torch.linspace(0, 6, images)))
    free = 2 * torch.rand(32 * images, 3, generator=torch.Generator().manual_seed(0)) - 1
    image = torch.arange(images).repeat_interleave(32)

    def step() -> float:
        condition = field.condition(latents)
        picture = raycast.render(
            sdf=field, axes=axes, condition=condition, resolution=resolution, memory=memory, budget=budget
        )  # type: ignore[arg-type]
        gradient = raycast.evaluate(field, free, condition, image, memory=memory, budget=budget).gradient  # type: ignore[arg-type]
        eikonal = (torch.cat([picture.field.gradient, gradient]).norm(dim=-1) - 1).square().mean()
        loss = picture.rgba.square().mean() + 0.1 * eikonal
        loss.backward()
        field.zero_grad()
        return loss.item()

    return step


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def high_water() -> int:
    """The most bytes that this process has held in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def peak_of(step: Callable[[], float]) -> int:
    """By how many bytes resident memory grows at most while `step` runs, looked at every millisecond."""
    before, peak, done = resident(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(1e-3):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        step()
    finally:
        done.set()
        watcher.join()
    return peak - before


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[16, 32], help="pictures of a step")
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--budget", type=int, default=256, help="MiB for the graph, in pieces")
    parser.add_argument("--rounds", type=int, default=3, help="of the comparison of times")
    parser.add_argument("--only", choices=("unbounded", "bounded"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    budget = arguments.budget * 2**20
    settings = (arguments.resolution, arguments.width)
    if arguments.only:
        make_step(1, *settings, arguments.only, budget)()
        print(json.dumps(peak_of(make_step(arguments.images[0], *settings, arguments.only, budget))))
        return 0
    for images in arguments.images:
        for memory in ("unbounded", "bounded"):
            command = [sys.executable, __file__, "--only", memory, "--images", str(images)]
            command += [
                "--resolution",
                str(settings[0]),
                "--width",
                str(settings[1]),
                "--budget",
                str(arguments.budget),
            ]
            ran = subprocess.run(command, capture_output=True, text=True, check=True)
            print(f"{images} pictures of {settings[0]}^2, width {settings[1]}, {memory}: "
                  f"{json.loads(ran.stdout) / 2**20:.0f} MiB at the peak", flush=True)  # fmt: skip
    torch.set_num_threads(1)
    steps = [make_step(arguments.images[0], *settings, memory, budget) for memory in ("unbounded", "bounded")]
    ratios = []
    for _ in range(arguments.rounds):
        times = []
        for step in steps:
            start = time.process_time()
            step()
            times.append(time.process_time() - start)
        ratios.append(times[1] / times[0])
    shared = environment()
    print(f"time of the CPU, bounded / unbounded: {statistics.median(ratios):.2f} (median of {len(ratios)})")
    print(f"{shared['device']}, {shared['threads']} threads, commit {shared['commit']}")
    assert all(map(math.isfinite, ratios))
    return 0


if __name__ == "__main__":
    sys.exit(main())
