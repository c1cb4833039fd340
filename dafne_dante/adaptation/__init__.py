"""Which weights of a network may move, and in what form."""

__all__: list[str] = []
