"""The site's own case store: sealed on disk, found by pseudonym, whole after every crash."""

__all__: list[str] = []
