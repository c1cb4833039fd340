"""Labelled studies as Dafne itself writes and holds them: bundles, exports and the viewer's own arrays."""

__all__: list[str] = []
