"""`python tools/train_nerf.py ...` is `sdfgan train-nerf ...`; see --help."""

import sys

from sdfgan.__main__ import program

if __name__ == "__main__":
    sys.exit(program("train-nerf"))
