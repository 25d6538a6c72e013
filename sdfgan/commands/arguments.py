"""What several sub-commands understand in the same way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sdfgan.errors import UserError

_MOST_SEEDS = 10_000  # a typing error in a range should not fill the memory


def parse_seeds(texts: str | Sequence[str]) -> list[int]:
    """Seeds such as "0,3,8-12", or ("0", "3", "8-12"), in the order given. Raises UserError for anything else."""
    text = texts if isinstance(texts, str) else ",".join(texts)
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*([0-9]{1,18})\s*(?:-\s*([0-9]{1,18})\s*)?", part)
        if found is None:
            raise UserError(f"--seeds must be numbers and ranges such as 0,3,8-12, got {text!r}")
        first = int(found[1])
        last = first if found[2] is None else int(found[2])
        if last < first:
            raise UserError(f"--seeds: a range must not fall, got {part.strip()}")
        if len(seeds) + last - first >= _MOST_SEEDS:
            raise UserError(f"--seeds: at most {_MOST_SEEDS} at once, got {text!r}")
        seeds += range(first, last + 1)
    return seeds


def run_folder(path: Path) -> Path:
    """The run folder that `path` is, or that the checkpoint `path` belongs to."""
    path = path.absolute()
    return path.parent.parent if path.parent.name == "checkpoints" else path


def require_positive(**values: float) -> None:
    """Raises UserError, naming the flag, for a value that is not positive."""
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"--{name.replace('_', '-')} must be positive, got {value}")
