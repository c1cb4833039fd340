"""The whole story of an improvement, on one page."""

__all__: list[str] = []
