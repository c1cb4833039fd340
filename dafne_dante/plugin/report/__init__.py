"""The report of an improvement: one HTML page that needs nothing else, for the people whose annotations made it."""

__all__: list[str] = []
