"""`sdfgan info`: what this installation is made of and what it can run on."""

from __future__ import annotations

import json
import platform
from typing import Any

import torch

from sdfgan import build_info
from sdfgan.cli.flags import InfoConfig


def collect() -> dict[str, Any]:
    """`sdfgan.build_info()` and where it runs, as plain JSON values."""
    devices = ["cpu"]
    for index in range(torch.cuda.device_count()):
        devices.append(f"cuda:{index} {torch.cuda.get_device_name(index)}")
    return {
        **build_info(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "devices": devices,
    }


def run(config: InfoConfig) -> None:
    """Print it."""
    values = collect()
    if config.json:
        print(json.dumps(values, indent=2))
        return
    width = max(map(len, values))
    for name, value in values.items():
        if isinstance(value, bool):
            value = "yes" if value else "no"
        elif isinstance(value, list):
            value = ", ".join(value) or "none"
        print(f"{name.replace('_', ' '):{width}}  {value}")
