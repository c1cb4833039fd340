"""The benchmark of adaptation: from a source domain to target domains, by every method, on the same cases."""

__all__: list[str] = []
