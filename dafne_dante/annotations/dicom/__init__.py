"""Labelled studies as a hospital's archive holds them: DICOM series, segmentations and structure sets."""

__all__: list[str] = []
