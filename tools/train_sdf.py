"""`python tools/train_sdf.py ...` is `sdfgan train-sdf ...`; see --help."""

import sys

from sdfgan.cli import main

if __name__ == "__main__":
    sys.exit(main(["train-sdf", *sys.argv[1:]], as_program=True))
