"""Between a site and an operator: transport, client, server, admission, merge."""

__all__: list[str] = []
