"""Records of checks and runs on a GPU, for `tools/gpu_report.py`: a JSON line each, on disk as soon as it is known."""

from __future__ import annotations

import argparse
import functools
import json
import os
from pathlib import Path
from typing import Any

from measure import environment

_environment = functools.cache(environment)


def parser(description: str | None) -> argparse.ArgumentParser:
    """With what all of these commands take."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal (default: cuda)")
    made.add_argument("--json", type=Path, metavar="FILE", help="append records to FILE")
    return made


def keep(arguments: argparse.Namespace, case: str, variant: str, config: dict[str, Any], **numbers: Any) -> None:
    """Append a record to the file of the command line, if one was given."""
    if arguments.json is None:
        return
    record = {"case": case, "config": config, "variant": variant, "numbers": numbers, "times_faster_than": {}}
    with arguments.json.open("a") as file:
        file.write(json.dumps({**record, **_environment(arguments.device)}) + "\n")
        file.flush()
        os.fsync(file.fileno())
