"""The way to the hub: nng over mutual TLS, open for one visit.

nng is used in plain threads only and closed before the visit ends: a socket that is open when the
process exits may abort it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from bedside_sync.calls import Ask
from bedside_sync.joining import Welcome


@contextmanager
def dial_hub(welcome: Welcome, transport: bytes) -> Iterator[Ask]:
    """Lend a connection; HubUnavailableError when the hub does not answer or is another."""
    from bedside_sync.transport_nng import Client, Identity  # nng loads when it is needed

    identity = Identity(
        certificate=welcome.certificate, key=transport.decode(), authority=welcome.authority
    )
    client = Client(welcome.url, identity, welcome.server_name)
    try:
        yield client
    finally:
        client.close()
