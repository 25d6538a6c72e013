"""Launch CUDA kernels on random sizes, those of FiLM-SIRENs and of the march above all; for compute-sanitizer.

compute-sanitizer --tool memcheck --error-exitcode 1 python tests/gpu/random_launches.py 10000
compute-sanitizer --tool racecheck --error-exitcode 1 python tests/gpu/random_launches.py 10000
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from networks import RandomNetwork, some_cameras, some_points
from sdfgan import ops
from sdfgan.cameras import DEFAULT_FOV
from sdfgan.raycast.levels import march_levels
from torus import torus


def main(launches: int) -> None:
    """Launches one of each kind in turn, `launches` in all."""
    random.seed(0)
    precisions = ["fp32", *(["fp16"] if torch.cuda.get_device_capability() >= (8, 0) else [])]
    networks = {
        (precision, width): RandomNetwork(3, width, (2, 1, 1)).on_cuda(precision)
        for precision in precisions
        for width in ops.CUDA_WIDTHS
    }
    streams = [torch.cuda.current_stream(), torch.cuda.Stream()]
    tree = ops.mesh_tree(*torus(16, 8)).to("cuda")
    cameras, begin = some_cameras(3).cuda(), time.perf_counter()
    for number in range(launches):
        network = random.choice(list(networks.values()))
        with torch.cuda.stream(random.choice(streams)):
            if number % 4 == 0:
                points, image = (t.cuda() for t in some_points([random.randrange(300) for _ in range(3)]))
                first, second = (ops.film_siren_sample(points, image, network)[1] for _ in range(2))
                assert torch.equal(first, second) and first.isfinite().all()
            elif number % 4 == 1:
                size = random.choice([3, 8, 20, 31])
                plan = march_levels(size, DEFAULT_FOV, threshold=1e-3, steps=random.choice([1, 9]), native=None)
                ops.film_siren_trace(cameras, plan, network, DEFAULT_FOV)
            elif number % 4 == 2:
                level = march_levels(random.choice([1, 5, 16]), DEFAULT_FOV, threshold=1e-3, steps=9)[-1]
                rays = ops.start_level(cameras, level, DEFAULT_FOV)
                values = rays.points.norm(dim=1) - 0.5
                made = (rays.origins, rays.directions, rays.far, rays.state, rays.status)
                ops.trace_step(values, rays.alive, rays.alive_count, *made, level.rules)
            else:
                composite_and_measure(tree)
        if sys.stderr.isatty() and number % 100 == 99:
            rate = (number + 1) / (time.perf_counter() - begin)
            print(f"\r{number + 1} of {launches}, {rate:.0f}/s", end="", file=sys.stderr)
    torch.cuda.synchronize()
    print(f"done: {launches} launches")


def composite_and_measure(tree: ops.MeshTree) -> None:
    """Compositing of packed rays with its gradients, and distances to a mesh."""
    offsets = torch.tensor([0, *(random.randrange(40) for _ in range(random.randrange(1, 300)))]).cumsum(0)
    count = int(offsets[-1])
    shapes = (count,), (count,), (count, random.choice([1, 3, 4, 6, 7])), (count,)
    inputs = [torch.rand(shape, device="cuda", requires_grad=True) for shape in shapes]
    composited = ops.composite(*inputs, offsets=offsets.cuda())
    assert composited.colors is not None
    gradients = torch.autograd.grad(composited.colors.sum() + composited.opacity.sum(), inputs[:3])
    assert all(gradient.isfinite().all() for gradient in gradients)
    distance = ops.mesh_distance(tree, torch.rand(count, 3, device="cuda")).distance
    assert distance.isfinite().all()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
