"""`python -m dafne_dante.host.dafne_qt [PATH] [Dafne's own arguments]`."""

import sys

from dafne_dante.host.dafne_qt.start import start_dafne

__all__: list[str] = []

if __name__ == "__main__":
    start_dafne(sys.argv[1:])
