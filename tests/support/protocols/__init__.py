"""The APIs that the scripted model server speaks, told apart by the path of a request."""

from .base import WireProtocol
from .messages import Messages

PROTOCOLS: tuple[WireProtocol, ...] = (Messages(),)


def protocol_at(path: str) -> WireProtocol | None:
    """The protocol served at `path`."""
    return next((protocol for protocol in PROTOCOLS if protocol.serves(path)), None)
