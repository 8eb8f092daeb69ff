"""Addresses on this machine, for tests and programs of several processes."""

import socket


def addresses(count: int) -> str:
    """HOST:PORT,HOST:PORT, ... that nothing listens on."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [f"127.0.0.1:{one.getsockname()[1]}" for one in held]
    for one in held:
        one.close()
    return ",".join(found)
