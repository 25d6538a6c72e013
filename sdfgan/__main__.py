"""The `sdfgan` command as a program of its own, which Ctrl-C ends with one line from its first moment."""

import os
import sys


def program(*command: str) -> int:
    """`sdfgan.cli.main` with the words of a command before the command line's arguments; its exit status."""
    # OpenMP reads this when torch is loaded. Its threads would else spin for milliseconds at each barrier, and on a
    # machine with other processes hold up the very threads that they wait for: two were four times slower than one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from sdfgan.cli import main

        return main([*command, *sys.argv[1:]], as_program=True)
    except KeyboardInterrupt:  # while the line above is carried out
        print("sdfgan: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(program())
