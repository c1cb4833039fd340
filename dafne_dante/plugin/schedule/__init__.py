"""The nightly run in the system's own scheduler: what to write and to call, decided here, done in `setting_up`."""

__all__: list[str] = []
