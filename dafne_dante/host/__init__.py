"""What a host program offers to the plugin, and the function sources that stock Dafne runs."""

__all__: list[str] = []
