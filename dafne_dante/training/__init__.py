"""The one training loop, with what it needs: patches, loss, metrics, hardware."""

__all__: list[str] = []
