"""Conversations as the alternating turns of APIs that know two sides and keep results inside a turn of the user."""

from collections.abc import Callable, Iterator

from ....core.messages import ExpertMessage, InstructionMessage, Message, ToolMessage
from ..base import ModelRequest
from ..failures import ProviderError


class Turn:
    """Adjacent messages of one side, each as the JSON of its blocks."""

    __slots__ = ("blocks", "is_marked", "results", "role")

    def __init__(self, role: bytes) -> None:
        self.role = role
        self.blocks: list[bytes] = []
        self.results = 0
        self.is_marked = False
        """Whether the prompt cache gets a mark at its end."""

    def add(self, piece: bytes, *, is_result: bool) -> None:
        """Append the blocks of one message; results must be the first of the turn that follows the calls."""
        if is_result:
            self.blocks.insert(self.results, piece)
            self.results += 1
        else:
            self.blocks.append(piece)

    def pieces(self, lead: bytes, mark: Callable[[bytes], bytes]) -> Iterator[bytes]:
        """The turn in JSON, for joining; `mark` puts a mark of the prompt cache behind blocks."""
        yield lead + b'{"role":"' + self.role + b'","content":['
        *others, last = self.blocks
        for block in others:
            yield block
            yield b","
        yield mark(last) if self.is_marked else last
        yield b"]}"


def system_of(request: ModelRequest, render: Callable[[Message], bytes]) -> bytes:
    """The blocks of the instruction, joined by commas."""
    pieces = (
        request.cache.message(index, message, render)
        for index, message in enumerate(request.messages)
        if isinstance(message, InstructionMessage)
    )
    return b",".join(piece for piece in pieces if piece)


def turns_of(request: ModelRequest, render: Callable[[Message], bytes]) -> list[Turn]:
    """The conversation as alternating turns; the ends of the last two user turns are marked for the prompt cache.

    The mark before the last one is where the previous call put its own, so that call's prefix is found again.

    Raises:
        ProviderError: there is nothing to answer.
    """
    turns: list[Turn] = []
    for index, message in enumerate(request.messages):
        if isinstance(message, InstructionMessage):
            continue
        piece = request.cache.message(index, message, render)
        if not piece:
            continue
        role = b"assistant" if isinstance(message, ExpertMessage) else b"user"
        if not turns or turns[-1].role != role:
            turns.append(Turn(role))
        turns[-1].add(piece, is_result=isinstance(message, ToolMessage))
    if not turns or turns[-1].role == b"assistant":
        raise ProviderError("unsupported", "The conversation does not end with something for the model to answer.")
    for turn in [turn for turn in turns if turn.role == b"user"][-2:]:
        turn.is_marked = True
    return turns
