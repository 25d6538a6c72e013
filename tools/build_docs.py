"""Builds the documentation: `pip install -e '.[docs]'`, then `python tools/build_docs.py`; open build/docs/index.html.

Sphinx reads build/docs-source: copies of the repository's pages, laid out as here, so that their relative links hold in
both places, and the pages that are made from the code and from the benchmarks' records. A warning is an error.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from pathlib import Path

from performance_page import performance_page
from reference_pages import api_pages, command_pages

ROOT = Path(__file__).parent.parent
COPIED = ("*.md", "CITATION.cff", "docs/**/*.*", "examples/*.*", "benchmarks/results/*.*")


def navigation(page: str) -> dict[str, list[str]]:
    """The headings of docs/README.md, and the pages named below each."""
    parts = re.split(r"^## (.*)\n", page, flags=re.M)[1:]
    sections = zip(parts[::2], parts[1::2], strict=True)
    found = {heading: re.findall(r"\]\(([\w./-]+)\.md\)", text) for heading, text in sections}
    return {heading: names for heading, names in found.items() if names}


def pages() -> dict[str, bytes]:
    """Everything that Sphinx reads, by its path there."""
    copied = {path for pattern in COPIED for path in ROOT.glob(pattern) if path.is_file()}
    found = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in sorted(copied)}
    menu = navigation((ROOT / "docs" / "README.md").read_text())
    menu["Project"].append("README")
    menu["Reference"] = ["../reference/api", "../reference/commands", "../reference/older-flags"]
    menu["Reference"].append("../reference/performance")
    for caption, names in menu.items():
        entries = "\n".join(f"docs/{name}".replace("docs/../", "") for name in names)
        found["README.md"] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}\n```\n".encode()
    for name, text in {**api_pages(), **command_pages(), "performance.md": performance_page()}.items():
        found[f"reference/{name}"] = text.encode()
    return found


def write(found: dict[str, bytes], source: Path) -> None:
    """What has not changed keeps its date, and is not read again."""
    for path in source.rglob("*.*"):
        if path.is_file() and path.relative_to(source).as_posix() not in found:
            path.unlink()
    for name, content in found.items():
        file = source / name
        if not file.exists() or file.read_bytes() != content:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def main() -> int:
    from sphinx.cmd.build import build_main

    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # of the code on the pages; more wait for each other on a busy machine
    begin = time.perf_counter()
    source, output = ROOT / "build" / "docs-source", ROOT / "build" / "docs"
    write(pages(), source)
    trees = str(ROOT / "build" / "docs-trees")
    status = build_main(
        ["-q", "-a", "-W", "--keep-going", "-c", str(ROOT / "docs"), "-d", trees, str(source), str(output)]
    )
    if status == 0:
        shutil.copyfile(output / "README.html", output / "index.html")  # the page that a server shows first
        print(f"wrote {output / 'index.html'} in {time.perf_counter() - begin:.0f} s")
    return status


if __name__ == "__main__":
    sys.exit(main())
