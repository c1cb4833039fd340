"""From cases to a plan: what they are like, what a machine can hold, and which network follows, with the reasons."""

__all__: list[str] = []
