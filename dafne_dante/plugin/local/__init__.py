"""Improved models that this site keeps for itself: which one Dafne uses now, and how to go back."""

__all__: list[str] = []
