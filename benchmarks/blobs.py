"""Networks to measure with: FiLM-SIRENs fitted to smooth unions of balls, one per latent.

They are kept in the cache folder (the environment variable SDFGAN_CACHE names another), where a machine finds what
another has fitted: a fit takes minutes on a CPU.
"""

from __future__ import annotations

import math

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from sdfgan.data.shapes import default_cache_folder
from sdfgan.errors import UserError
from sdfgan.fields import FilmSirenSDF
from sdfgan.training.files import atomic_file
from sdfgan.training.progress import progress

_IMAGES = 16
_BALLS = 5
_SMOOTHNESS = 0.1
_LATENT_SIZE = 256
_VERSION = 2


def blobs(width: int, quick: bool = False, device: str = "cpu") -> tuple[FilmSirenSDF, Tensor]:
    """A network of four trunk and three sdf layers of `width`, and 16 latents whose shapes it has learned."""
    steps = 150 if quick else 1200
    torch.manual_seed(0)
    field = FilmSirenSDF(width=width, trunk_layers=4, sdf_layers=3, latent_size=_IMAGES, omega_first=5, omega_hidden=10)
    field.to(device)
    latents = 2 * torch.eye(_IMAGES, device=device)
    path = default_cache_folder() / "benchmarks" / f"blobs-{_VERSION}-{width}-{steps}.safetensors"
    if path.exists():
        field.load_state_dict(load_file(path))
    else:
        _fit(field, latents, steps)
        try:
            with atomic_file(path) as partial:
                partial.write_bytes(save({name: tensor.cpu() for name, tensor in field.state_dict().items()}))
        except UserError as error:
            print(f"blobs of width {width} are fitted anew each time: {error}")
    return field.eval().requires_grad_(False), latents


def distance(points: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """Smooth unions [B, P] (exponential, Quilez 2013) of balls at centres [B, K, 3] for points [B, P, 3]."""
    balls = (points[:, :, None] - centres[:, None]).norm(dim=-1) - radii[:, None]
    return -_SMOOTHNESS / 4 * torch.logsumexp(-4 * balls / _SMOOTHNESS, dim=-1)


@torch.enable_grad()
def _fit(field: FilmSirenSDF, latents: Tensor, steps: int) -> None:
    random, device = torch.Generator().manual_seed(1), latents.device
    centres = (torch.rand(_IMAGES, _BALLS, 3, generator=random) - 0.5) * 0.7
    radii = 0.1 + 0.12 * torch.rand(_IMAGES, _BALLS, generator=random)
    centres, radii = centres.to(device), radii.to(device)
    optimizer = torch.optim.Adam(field.parameters(), lr=1e-3)
    per_image = 256
    image = torch.arange(_IMAGES, device=device).repeat_interleave(per_image)
    with progress(steps, f"fitting {field.width}") as bar:
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * step / steps))
            points = (2 * torch.rand(_IMAGES, per_image, 3, generator=random) - 1).to(device)
            value = field.sdf(points.flatten(0, 1), field.condition(latents), image)
            loss = (value - distance(points, centres, radii).flatten()).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            bar.advance(1, f"error {loss.item():.4f}")
