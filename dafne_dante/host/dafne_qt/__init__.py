"""The plugin inside Dafne's own client (PyQt5): what is annotated there, and starting it with the plugin.

Invariants: nothing of Dafne's files is changed; `drawn` and `keeping` import neither Dafne nor Qt, so that they are
tested without them.
"""

__all__: list[str] = []
