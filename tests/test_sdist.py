"""The source distribution holds all that builds, documents and tests the package, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of the source distribution, as setuptools lists them."""
    base = tmp_path_factory.mktemp("egg")
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(base)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = (base / "sdfgan.egg-info" / "SOURCES.txt").read_text().split("\n")
    return {name for name in names if name and "egg-info" not in name}


def test_it_holds_what_git_does_not_ignore(listed: set[str]) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    listing = subprocess.run(
        ["git", "ls-files", "-z", "-c", "-o", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    known = {name for name in listing.split("\0") if name and (ROOT / name).exists()}
    assert known - listed == set() and listed - known - {"setup.cfg"} == set()


def test_it_holds_what_tests_read(listed: set[str]) -> None:
    """In a tree that git knows nothing of as well."""
    for folder in ("tests", "docs", "csrc", "tools", "benchmarks", "sdfgan"):
        here = [
            path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".md", ".png", ".h", ".cpp", ".cu")
        ]
        missing = {str(path.relative_to(ROOT)) for path in here} - listed
        assert missing == set() and here, folder
    assert {"CHANGELOG.md", "CONTRIBUTING.md", "constraints.txt", "CMakeLists.txt", ".ci/run", "LICENSE"} <= listed
