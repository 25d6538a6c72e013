"""What nvcc makes of the CUDA kernels: registers, stack and spilled bytes, for every architecture. Needs no GPU.

python benchmarks/registers.py                  # benchmarks/results/registers.tsv
python benchmarks/registers.py --archs 80 90
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from measure import commit

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Writes the table, and says which kernels spill."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", nargs="+", default=["75", "80", "90", "100", "120"], metavar="ARCH")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/registers.tsv")
    arguments = parser.parse_args()
    sources = sorted((ROOT / "csrc/cuda").glob("*.cu"))
    rows = []
    with ThreadPoolExecutor(2) as pool:
        for source in sources:
            for kernels in pool.map(partial(_compile, source), arguments.archs):
                rows += kernels
    version = _run("nvcc", "--version").strip().splitlines()[-2]
    lines = [
        f"# nvcc -O3 -Xptxas -v, {version}, commit {commit()}",
        "arch\tkernel\tregisters\tbytes of stack\tspilled bytes",
    ]
    lines += ["\t".join(row) for row in sorted(rows)]
    arguments.output.write_text("\n".join(lines) + "\n")
    spilling = [row for row in rows if row[-1] != "0"]
    for row in spilling:
        print("spills:", *row)
    print(f"done: {len(rows)} kernels, {len(spilling)} of which spill, in {arguments.output}")
    return 0


def _compile(source: Path, arch: str) -> list[tuple[str, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        flags = ["-std=c++17", "-O3", "-Xptxas", "-v", f"-I{ROOT / 'csrc'}", f"-arch=sm_{arch}"]
        output = _run("nvcc", *flags, "-c", str(source), "-o", f"{folder}/kernel.o")
    output = _run("c++filt", stdin=output)
    rows = []
    name = stack = spilled = ""
    for line in output.splitlines():
        if entry := re.search(r"entry function '(?:void )?(.*)' for", line):
            name = re.sub(r"sdfgan::cuda::|sdfgan::|\(anonymous namespace\)::", "", entry[1]).split("(")[0]
        elif spill := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores", line):
            stack, spilled = spill[1], spill[2]
        elif used := re.search(r"Used (\d+) registers", line):
            rows.append((f"sm_{arch}", name, used[1], stack, spilled))
    return rows


def _run(*command: str, stdin: str | None = None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"registers.py: {' '.join(command)}\n{done.stderr}")
    return done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main())
