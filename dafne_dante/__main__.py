"""`python -m dafne_dante`: the command line without its console script."""

from dafne_dante.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
