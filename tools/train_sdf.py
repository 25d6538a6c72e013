"""`python tools/train_sdf.py ...` is `sdfgan train-sdf ...`; see --help."""

import sys

from sdfgan.__main__ import program

if __name__ == "__main__":
    sys.exit(program("train-sdf"))
