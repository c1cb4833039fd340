"""Models that only code of their own can build: refused, or run in an isolated child where a site opted in."""

__all__: list[str] = []
