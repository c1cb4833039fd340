"""Labelled studies in NIfTI files: single volumes, and the folder layouts that people keep them in."""

__all__: list[str] = []
