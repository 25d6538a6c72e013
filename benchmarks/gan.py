"""Trains GANs for equal times on the built-in set and compares what they reach.

    python benchmarks/gan.py recipes --minutes 30 --seeds 0 1 2     # our default against the recipe of dfr
    python benchmarks/gan.py losses --minutes 5 --seeds 0 1 2       # each loss with our default's networks

Minutes are of processor time of one thread, so that runs side by side, or whatever else the machine does, do not count.
Each run is measured for a few steps first, so that its schedule ends when its time does. Pictures are compared with
2,000 that no run has learned from, shapes of the recipes with 105 of the set. Runs that the JSON file has are not
repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

from sdfgan.cli import main as sdfgan
from sdfgan.errors import UserError
from sdfgan.gan import GanConfig, train
from sdfgan.gan.data import load_training_data
from sdfgan.gan.job import GanJob
from sdfgan.gan.losses import ADVERSARIAL_LOSSES

_WARM_UP, _MEASURED = 10, 40  # steps
_PICTURES, _SHAPES = 2000, 105

# dfr's own sizes are for a GPU: a CPU makes a hundred steps in half an hour. At the sizes of our default's networks
# (its discriminator has 311,489 parameters, ours 301,633) the recipe is what differs.
SUITES: dict[str, dict[str, dict[str, Any]]] = {
    "recipes": {
        "default": {},
        "dfr": {"curriculum": "dfr", "resolution": 32},
        "dfr, our size": {
            "curriculum": "dfr",
            "resolution": 32,
            "width": 64,
            "mapping_width": 128,
            "discriminator_channels": 16,
            "discriminator_max_channels": 96,
        },
    },
    "losses": {name: {"gan_loss": name} for name in ADVERSARIAL_LOSSES},
}


def steps_within(config: GanConfig, seconds: float) -> int:
    """How many steps a run can make in a time, from the rate of its first ones. Preconditioning counts."""
    data = load_training_data(config, verbose=False)
    job = GanJob(config, data)
    try:
        started = time.process_time()
        job.precondition()
        left = seconds - (time.process_time() - started)
        for _ in range(_WARM_UP):
            job.step()
        started = time.process_time()
        for _ in range(_MEASURED):
            job.step()
        rate = _MEASURED / (time.process_time() - started)
    finally:
        job.close()
    return max(1, int(rate * left))


def one_run(suite: str, name: str, seed: int, minutes: float, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Train and measure; returns the record."""
    config = GanConfig(seed=seed, shapes="solids", **options)
    steps = steps_within(dataclasses.replace(config, steps=1_000_000).resolved(), 60 * minutes)
    run = folder / f"{suite}-{name.replace(', ', '-').replace(' ', '-')}-seed{seed}"
    quiet = {"sample_interval": max(1, steps // 8), "checkpoint_interval": max(1, steps // 4)}
    started = time.process_time()
    summary = train(dataclasses.replace(config, steps=steps, output_dir=run, **quiet))
    spent = time.process_time() - started  # what the pictures at the end cost is in it: about half a minute
    scores = run / "evaluation.json"
    shapes = _SHAPES if suite == "recipes" else 0
    sdfgan(["evaluate", str(run), "--images", str(_PICTURES), "--shapes", str(shapes), "--output", str(scores)])
    warnings = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if '"warning"' in line]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if '"loss_d"' in line]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "suite": suite,
        "name": name,
        "seed": seed,
        "minutes": minutes,
        "steps": steps,
        "training_seconds": summary["training_seconds"],
        "processor_minutes": spent / 60,
        "eikonal": statistics.mean(line["eikonal"] for line in lines[-20:]),
        "skipped": statistics.mean(line["skipped"] for line in lines),  # share of the steps
        "warnings": sorted({warning["warning"] for warning in warnings}),
        "commit": commit.stdout.strip(),
        "device": summary["device"],
        "threads": summary["threads"],
        "torch": torch.__version__,
        **{name: value for name, value in json.loads(scores.read_text()).items() if isinstance(value, float)},
    }


def table(records: list[dict[str, Any]]) -> str:
    """Medians over seeds, as Markdown."""
    columns = ("steps", "swd", "mmd", "coverage", "one_nna", "eikonal", "skipped")
    lines = [f"| | {' | '.join(columns)} | worst swd | warnings |", "|---" * (len(columns) + 3) + "|"]
    for name in dict.fromkeys(record["name"] for record in records):
        own = [record for record in records if record["name"] == name]
        medians = [statistics.median(record.get(column, float("nan")) for record in own) for column in columns]
        warnings = ", ".join(sorted({warning for record in own for warning in record["warnings"]})) or "none"
        numbers = " | ".join("" if math.isnan(value) else f"{value:.4g}" for value in medians)
        lines.append(f"| {name} | {numbers} | {max(record['swd'] for record in own):.4g} | {warnings} |")
    names = [name for name in ("swd_floor", "floor_mmd", "floor_coverage") if all(name in r for r in records)]
    floors = {name: statistics.median(record[name] for record in records) for name in names}
    lines.append("\nfloors: " + ", ".join(f"{name} {value:.4g}" for name, value in floors.items()))
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="names of the suite")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = arguments.output / f"{arguments.suite}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    for seed in arguments.seeds:
        for name, options in SUITES[arguments.suite].items():
            if arguments.only and name not in arguments.only:
                continue
            records = [json.loads(line) for line in path.read_text().splitlines()]
            if any((r["name"], r["seed"], r["minutes"]) == (name, seed, arguments.minutes) for r in records):
                continue
            try:
                record = one_run(arguments.suite, name, seed, arguments.minutes, arguments.output, options)
            except UserError as error:  # dfr's fit of a ball before training fails with some seeds
                print(f"{name}, seed {seed}: no record: {error}")
                continue
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    print(table([record for record in records if record["minutes"] == arguments.minutes]))
    print(f"records: {path}; pictures: {arguments.output}/*/grid.png")


if __name__ == "__main__":
    main()
