"""The models of `train-nerf` on a scene: time and scores as a table.

python benchmarks/nerf.py lego/ --models fast nerf --steps 2000
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import get_args

from measure import environment
from sdfgan.nerf import NerfConfig, train
from sdfgan.nerf.config import Model


def main() -> None:
    """Train each model, and print a row for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path, help="folder of a scene with validation or test views")
    parser.add_argument("--models", nargs="+", choices=get_args(Model), default=list(get_args(Model)))
    parser.add_argument("--steps", type=int, help="updates of each; default: the model's")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="append a line for each model to this file")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            config = NerfConfig(
                data=arguments.scene,
                model=model,
                steps=arguments.steps,
                device=arguments.device,
                output_dir=Path(folder) / model,
                video_frames=0,
                mesh_resolution=0,
                evaluate_interval=0,
            )
            used = time.process_time()
            summary = train(config)
            scores = summary["scores"].get("test") or summary["scores"].get("val") or {}
            row = {
                "model": model,
                "steps": summary["steps"],
                "minutes": summary["training_seconds"] / 60,
                "cpu_minutes": (time.process_time() - used) / 60,  # with the final evaluation
                **scores,
                **environment("cpu" if summary["device"] == "cpu" else "cuda"),
                "threads": summary["threads"],
            }
            rows.append(row)
            if arguments.json is not None:
                with arguments.json.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    print("\n| model | steps | minutes | CPU minutes | PSNR | SSIM |\n|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['model']} | {row['steps']} | {row['minutes']:.1f} | {row['cpu_minutes']:.1f} | "
            f"{row.get('psnr', float('nan')):.2f} | {row.get('ssim', float('nan')):.3f} |"
        )


if __name__ == "__main__":
    main()
