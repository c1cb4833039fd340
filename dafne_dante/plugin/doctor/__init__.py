"""What `dafne-dante doctor` looks at, and what it says to do."""

__all__: list[str] = []
