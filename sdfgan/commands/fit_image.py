"""`sdfgan fit-image`: inverse rendering. Images of a known thing are fitted by gradient descent through `render`."""

from __future__ import annotations

import math

from sdfgan.checks import check_cells
from sdfgan.commands.arguments import require_between, require_positive
from sdfgan.errors import UserError
from sdfgan.inverse import FitImageConfig, train

__all__ = ["FitImageConfig", "run"]


def run(config: FitImageConfig) -> None:
    """Fit, and say how well."""
    require_positive(
        views=config.views, resolution=config.resolution, minutes=config.minutes, steps=config.steps,
        views_per_step=config.views_per_step, width=config.width, lr=config.lr,
    )  # fmt: skip
    require_between(0, math.inf, video_frames=config.video_frames)
    check_cells("--mesh-resolution", config.mesh_resolution)
    if config.resolution % 4:
        raise UserError(f"--resolution must be a multiple of 4, got {config.resolution}")
    train(config)
