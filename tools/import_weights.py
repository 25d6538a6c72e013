"""`python tools/import_weights.py ...` is `sdfgan import-weights ...`; see --help."""

import sys

from sdfgan.__main__ import program

if __name__ == "__main__":
    sys.exit(program("import-weights"))
