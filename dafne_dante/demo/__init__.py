"""A federation of simulated hospitals on one machine; what is real in it and what is not is said in `anatomy`."""

__all__: list[str] = []
