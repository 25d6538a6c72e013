"""Mitsuba 3's `sdfgrid` (Jakob et al.) as a differentiable image: the peer that people have, on the same grid.

It needs `pip install mitsuba` and a shared library of LLVM 16 or newer (DRJIT_LIBLLVM_PATH says where it is).
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from sdfgan import cameras

_VARIANT = "llvm_ad_rgb"
_PROBE = f"""
import sys, torch
sys.path.insert(0, {str(__file__).rpartition("/")[0]!r})
import mitsuba_grid
grid = (mitsuba_grid.torch.linspace(-1, 1, 3)[:, None, None] + torch.zeros(3, 3, 3)).requires_grad_()
mitsuba_grid.image(grid, torch.eye(3)[None], 4, 1, 0).sum().backward()
"""


def why_not() -> str | None:
    """Why Mitsuba is left out, in a line; None if it runs. Found by another process, as an old LLVM aborts it."""
    if find_spec("mitsuba") is None:
        return "mitsuba is left out, for it is not installed: pip install mitsuba"
    probe = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True)
    if probe.returncode == 0:
        return None
    return "mitsuba is left out, for it cannot render here: it needs LLVM 16 or newer, see DRJIT_LIBLLVM_PATH"


def image(values: Tensor, axes: Tensor, resolution: int, samples: int, seed: int) -> Tensor:
    """[R, R] of a `GridSDF`'s values [N, N, N] in grey .7: ambient light .3, a headlight .7, Lambert's law, on black.

    Differentiable in the values, as far as Mitsuba is; `samples` rays per pixel for the image and for its gradient.
    """
    return _Image.apply(values, axes, resolution, samples, seed)


class _Image(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, axes: Tensor, resolution: int, samples: int, seed: int) -> Tensor:
        import mitsuba as mi

        mi.set_variant(_VARIANT)
        scene = mi.load_dict(_description(mi, values, axes, resolution))
        ctx.scene, ctx.samples, ctx.seed = scene, samples, seed
        ctx.dtype = values.dtype
        picture = mi.render(scene, spp=samples, seed=seed)
        return torch.from_numpy(picture.numpy()[..., 0].copy()).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Any, ...]:
        import drjit as dr
        import mitsuba as mi

        parameters = mi.traverse(ctx.scene)
        grid = parameters["shape.grid"]
        dr.enable_grad(grid)
        parameters.update()
        weights = mi.TensorXf(slope.float()[..., None].repeat(1, 1, 3).numpy() / 3)
        picture = mi.render(ctx.scene, parameters, spp=ctx.samples, seed=ctx.seed, seed_grad=ctx.seed + 10**6)
        dr.backward(dr.sum(picture * weights, axis=None))
        gradient = torch.from_numpy(dr.grad(grid).numpy()[..., 0].copy())
        return gradient.permute(2, 1, 0).to(ctx.dtype), None, None, None, None


def _description(mi: Any, values: Tensor, axes: Tensor, resolution: int) -> dict[str, Any]:
    """A scene; its grid is [z, y, x, 1] over the unit cube."""
    place = mi.ScalarTransform4f
    up, behind = axes[0, 1].tolist(), axes[0, 2].tolist()
    eye = [cameras.camera_distance() * part for part in behind]
    grid = values.detach().permute(2, 1, 0)[..., None].float().contiguous().numpy()
    shape = {
        "type": "sdfgrid",
        "grid": mi.TensorXf(grid),
        "normals": "smooth",
        "to_world": place().translate([-1, -1, -1]).scale(2),
        "bsdf": {"type": "diffuse", "reflectance": {"type": "rgb", "value": 0.7}},
        "emitter": {"type": "area", "radiance": {"type": "rgb", "value": 0.7 * 0.3}, "sampling_weight": 0.0},
    }
    return {
        "type": "scene",
        "integrator": {"type": "prb", "max_depth": 2},
        "shape": shape,
        "headlight": {
            "type": "directional",
            "direction": [-part for part in behind],
            "irradiance": {"type": "rgb", "value": 0.7 * torch.pi},
        },
        "sensor": {
            "type": "perspective",
            "fov": 25.0,
            "to_world": place().look_at(eye, [0, 0, 0], up),
            "film": {"type": "hdrfilm", "width": resolution, "height": resolution, "rfilter": {"type": "box"}},
            "sampler": {"type": "independent", "sample_count": 16},
        },
    }
