"""Events and checkpoints as JSON: each message is encoded once, and nothing else is different for it."""

import pytest
from perstack.cli.output import EventEncoder
from perstack.core.checkpoint import Checkpoint
from perstack.core.events import CompleteRun, StartGeneration
from perstack.core.messages import ExpertMessage, TextPart
from support.stories import STORIES


@pytest.mark.parametrize("name", STORIES)
def test_an_event_is_encoded_as_by_itself(name: str) -> None:
    encoder = EventEncoder()
    for event in STORIES[name]().events:
        assert encoder.encode(event) == event.wire_json().encode() + b"\n"
        checkpoint = getattr(event, "checkpoint", None)
        if isinstance(checkpoint, Checkpoint):
            assert b"".join(encoder.checkpoint_pieces(checkpoint)) == checkpoint.wire_json().encode()


def test_a_conversation_that_went_another_way_is_not_taken_for_the_one_before() -> None:
    (generation, *_) = [one for one in STORIES["retry"]().events if isinstance(one, StartGeneration)]
    encoder = EventEncoder()
    first = generation.messages
    one, other = (ExpertMessage(id=name, contents=(TextPart(id=name, text=name),)) for name in "xy")
    for messages in (first, (*first, one), (*first, other), first, ()):
        event = generation.replaced(messages=messages)
        assert encoder.encode(event) == event.wire_json().encode() + b"\n"


def test_a_text_that_looks_like_the_place_of_a_conversation_harms_nothing() -> None:
    done = next(one for one in STORIES["chain"]().events if isinstance(one, CompleteRun))
    hole = '"\u241fmessages\u241f"'
    for text in (hole, hole[1:-1], f"{hole} {hole}"):
        event = done.replaced(text=text)
        message = ExpertMessage(id="m", contents=(TextPart(id="p", text=text),))
        checkpoint = done.checkpoint.replaced(messages=(message,), metadata={"said": text})
        encoder = EventEncoder()
        assert encoder.encode(event) == event.wire_json().encode() + b"\n"
        assert b"".join(encoder.checkpoint_pieces(checkpoint)) == checkpoint.wire_json().encode()
