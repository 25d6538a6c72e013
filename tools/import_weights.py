"""`python tools/import_weights.py ...` is `sdfgan import-weights ...`; see --help."""

import sys

from sdfgan.cli import main

if __name__ == "__main__":
    sys.exit(main(["import-weights", *sys.argv[1:]], as_program=True))
