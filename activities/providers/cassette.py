"""A provider that answers from a cassette and stops the run where it leaves the recorded one."""

import asyncio

from ...core.cassette import Cassette, CassetteEntry, Situation, answered_calls, compare, place_of
from ...core.failures import Failure, PerstackError
from ...core.messages import TextPart, ThinkingPart
from ...core.run import Generation
from .base import Deltas, ModelRequest

DIVERGED = "cassette.diverged"
EXHAUSTED = "cassette.exhausted"


class RecordedFailure(PerstackError):
    """The recorded job failed here, for good."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message, code=failure.name)
        self.failure = failure.model_copy(update={"is_retryable": False})


class CassetteProvider:
    """Replays one cassette; asks nobody and needs no credentials."""

    def __init__(self, cassette: Cassette, *, is_strict: bool = False, workspace: str = "") -> None:
        self._cassette = cassette
        self._entries = {(entry.path, entry.ordinal): entry for entry in cassette.entries}
        self._is_strict = is_strict
        self._workspace = workspace

    async def generate(self, request: ModelRequest, deltas: Deltas) -> Generation:
        """The recorded answer to this call.

        Raises:
            PerstackError: the run has left the recorded one, or goes on behind its end.
            RecordedFailure: the recorded call failed.
        """
        entry = self._entry(request)
        self._check(entry, situation_of(request))
        if isinstance(entry.reply, Failure):
            raise RecordedFailure(entry.reply)
        for part in entry.reply.contents:
            if isinstance(part, ThinkingPart) and part.thinking:
                deltas.reasoning(part.thinking)
            elif isinstance(part, TextPart):
                deltas.text(part.text)
            # A live call gives way between its pieces, too: heartbeats and a cancel get their turn.
            await asyncio.sleep(0)
        if request.on_usage is not None:
            request.on_usage(entry.reply.usage)
        return entry.reply.model_copy(update={"attempts": (), "is_draining": False})

    async def close(self) -> None:
        """Nothing is held."""

    def _entry(self, request: ModelRequest) -> CassetteEntry:
        entry = self._entries.get((request.path, request.ordinal))
        if entry is not None:
            return entry
        of_run = sum(path == request.path for path, _ in self._entries)
        raise PerstackError(
            f"The cassette holds no answer for {place_of(request.path, request.ordinal)} "
            f"(expert `{request.expert.key}`): {of_run} for this run, {len(self._entries)} in all.",
            code=EXHAUSTED,
            hint="Record the run again.",
        )

    def _check(self, entry: CassetteEntry, actual: Situation) -> None:
        difference = compare(
            entry.situation,
            actual,
            is_strict=self._is_strict,
            recorded_workspace=self._cassette.workspace,
            workspace=self._workspace,
        )
        if difference is not None:
            message = f"The replay left the recording at {entry.place} (expert `{actual.expert_key}`): {difference}"
            raise PerstackError(message, code=DIVERGED, hint="Record the run again if the change is meant.")


def situation_of(request: ModelRequest) -> Situation:
    """What `request` answers to, as a recording holds it."""
    return Situation(
        expert_key=request.expert.key,
        tools=tuple(spec.name for spec in request.tools),
        answers=answered_calls(request.messages),
    )
