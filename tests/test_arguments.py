"""What commands have in common: seeds as people write them, run folders, outputs that are never in the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sdfgan.cli.arguments import output_path, parse_seeds, run_folder
from sdfgan.errors import UserError


def test_seeds() -> None:
    assert parse_seeds("0,3,8-12") == [0, 3, 8, 9, 10, 11, 12]
    assert parse_seeds(" 7 , 1 - 2 ") == [7, 1, 2]
    for text in ("", "a", "1,", "-1", "1-2-3", "1.5", "5-3", "0-99999999999", "9" * 30):
        with pytest.raises(UserError, match="--seeds"):
            parse_seeds(text)


def test_run_folder(tmp_path: Path) -> None:
    assert run_folder(tmp_path) == run_folder(tmp_path / "checkpoints" / "step-0000005") == tmp_path


def test_output_path(tmp_path: Path) -> None:
    """Default names that exist are left alone, given ones are not; what is read is never written."""
    file, folder = tmp_path / "a.b.png", tmp_path / "pictures"
    assert output_path(None, file) == file and output_path(None, folder, folder=True) == folder
    file.touch()
    folder.mkdir()
    (tmp_path / "a.b-2.png").touch()
    os.mkfifo(tmp_path / "pipe")
    assert output_path(None, file) == tmp_path / "a.b-3.png"
    assert output_path(None, folder, folder=True) == tmp_path / "pictures-2"
    assert output_path(file, file) == file and output_path(folder, file, folder=True) == folder
    assert output_path(folder / "new.png", file, reads=[folder]) == folder / "new.png"
    for given, is_folder, message in [
        (folder, False, "is a folder, expected a file"),
        (file, True, "is a file, expected a folder"),
        (file / "x" / "y.png", False, "cannot be written: .*a.b.png is not a folder"),
        (folder / ".." / "a.b.png", False, "is read; name another file"),
        (tmp_path / ("x" * 300), False, "cannot be written"),
        (tmp_path / "pipe", False, "is a device or a pipe, expected a file"),
    ]:
        with pytest.raises(UserError, match=message):
            output_path(given, file, folder=is_folder, reads=[tmp_path])
    assert not (tmp_path / "x").exists() and len(list(tmp_path.iterdir())) == 4, "nothing is made"
