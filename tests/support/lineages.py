"""What a played job can go on from, and how it goes on."""

from collections.abc import Iterator

from perstack.core.checkpoint import Checkpoint
from perstack.core.events import ContinueToNextStep
from perstack.core.lineage import Going, Lineage, Moment, ToldRun
from perstack.core.machine import advance
from perstack.core.messages import TextPart, UserMessage
from perstack.core.run import RunInput
from perstack.core.state import begin

from .play import Play, PlayedRun


def lineage_of(play: Play) -> Lineage:
    """All checkpoints of a played job."""
    return Lineage(play.root.start.job_id, tuple(_told(run) for run in play.runs))


def checkpoints_of(play: Play) -> Iterator[Checkpoint]:
    """Every checkpoint that an event of the job closed."""
    for event in play.events:
        checkpoint = getattr(event, "checkpoint", None)
        if isinstance(checkpoint, Checkpoint) and checkpoint.status != "init":
            yield checkpoint


def next_input(going: Going, run_id: str = "next-run") -> RunInput:
    """The input of the execution that goes on."""
    return going.start.replaced(run_id=run_id, seed=going.seed, previous="temporal-run")


def user(text: str) -> UserMessage:
    """A new query."""
    return UserMessage(contents=(TextPart(text=text),))


def steps_of(play: Play, key: str) -> list[Checkpoint]:
    """The checkpoints at the ends of an expert's steps."""
    return [
        event.checkpoint
        for event in play.events
        if isinstance(event, ContinueToNextStep) and event.checkpoint.expert.key == key
    ]


def _told(run: PlayedRun) -> ToldRun:
    state = begin(run.start)
    moments: list[Moment] = []
    for trigger, _ in run.told:
        transition = advance(state, trigger)
        state = transition.state
        moments.append(Moment(trigger, state, transition.events))
    return ToldRun(state, tuple(moments))
