"""`python -m sdfgan` is the `sdfgan` command."""

from .cli import main

if __name__ == "__main__":
    main()
