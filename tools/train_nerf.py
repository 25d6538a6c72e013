"""`python tools/train_nerf.py ...` is `sdfgan train-nerf ...`; see --help."""

import sys

from sdfgan.cli import main

if __name__ == "__main__":
    sys.exit(main(["train-nerf", *sys.argv[1:]], as_program=True))
