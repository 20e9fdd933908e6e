"""The APIs that the scripted model server speaks, told apart by the path of a request."""

from .base import WireProtocol
from .chat import CHAT
from .converse import Converse
from .gemini import Gemini
from .messages import Messages
from .responses import Responses

PROTOCOLS: tuple[WireProtocol, ...] = (Messages(), Gemini(), CHAT, Responses(), Converse())


def protocol_at(path: str) -> WireProtocol | None:
    """The protocol served at `path`."""
    return next((protocol for protocol in PROTOCOLS if protocol.serves(path)), None)
