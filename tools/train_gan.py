"""`python tools/train_gan.py ...` is `sdfgan train-gan ...`; see --help."""

import sys

from sdfgan.cli import main

if __name__ == "__main__":
    sys.exit(main(["train-gan", *sys.argv[1:]], as_program=True))
