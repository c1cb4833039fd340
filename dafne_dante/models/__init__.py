"""What a global model is: its plan, its file, its network, its preprocessing and its predictions."""

__all__: list[str] = []
