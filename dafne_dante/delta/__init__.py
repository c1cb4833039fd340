"""What moved relative to one base model, as a small signed file."""

__all__: list[str] = []
