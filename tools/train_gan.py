"""`python tools/train_gan.py ...` is `sdfgan train-gan ...`; see --help."""

import sys

from sdfgan.__main__ import program

if __name__ == "__main__":
    sys.exit(program("train-gan"))
