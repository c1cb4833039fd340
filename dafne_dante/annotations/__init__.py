"""A site's labelled studies, read from its files into Cases."""

__all__: list[str] = []
