"""`generate`: one model call over the session's conversation; streams, heartbeats, reports every attempt."""

import asyncio
import time
from dataclasses import dataclass, field

from temporalio import activity
from temporalio.exceptions import ApplicationError

from ..core.deltas import Delta, DeltaKind, FailedAttempts
from ..core.failures import Attempt, Failure, PerstackError
from ..core.messages import ExpertMessage
from ..core.run import Generation
from ..core.usage import NO_USAGE, Usage
from ..workflows.contracts import GENERATE, GenerateRequest, Heartbeat
from .boundary import Heartbeats, failures_translated, time_limit_seconds, to_application_error, within, worker_leaving
from .feed import Feed
from .providers.base import ModelRequest
from .providers.cassette import RecordedFailure
from .providers.failures import ProviderError
from .redaction import RedactedStream, Redactor
from .session import RunKey, RunSession, calling_run
from .sessions import Sessions
from .settling import Settler

TAIL_CHARACTERS = 4096
"""How much of text, and of reasoning, a heartbeat carries; more than two intervals of any model."""


@dataclass
class _Said:
    """How much an attempt has said of one kind, and the end of it."""

    length: int = 0
    tail: str = ""

    @property
    def offset(self) -> int:
        return self.length - len(self.tail)

    def take(self, text: str) -> None:
        self.length += len(text)
        self.tail = (self.tail + text)[-TAIL_CHARACTERS:]


@dataclass
class _Live:
    """What is known of a call while it runs."""

    feed: Feed
    key: RunKey
    ordinal: int
    attempts: tuple[Attempt, ...]
    begun_at: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    usage: Usage = NO_USAGE
    seq: int = 0
    redactor: Redactor = field(default_factory=lambda: Redactor(()))
    """Of the session, once there is one."""
    _said: dict[DeltaKind, _Said] = field(default_factory=lambda: {"reasoning": _Said(), "text": _Said()})
    _stream: RedactedStream | None = None
    _kind: DeltaKind = "text"
    """Of what is said now."""

    def reasoning(self, delta: str) -> None:
        self._take("reasoning", delta)

    def text(self, delta: str) -> None:
        self._take("text", delta)

    def flush(self) -> None:
        """Say what was held back because it could have become a secret: what it belongs to is complete."""
        if self._stream is not None:
            self._say(self._kind, self._stream.flush())

    def _take(self, kind: DeltaKind, delta: str) -> None:
        if self._stream is None or kind != self._kind:
            self.flush()
            self._stream, self._kind = self.redactor.stream(), kind
        self._say(kind, self._stream.feed(delta))

    def _say(self, kind: DeltaKind, delta: str) -> None:
        if not delta:
            return
        said = self._said[kind]
        self.seq += 1
        self.feed.publish(
            Delta(
                workflow_id=self.key.workflow_id,
                temporal_run_id=self.key.temporal_run_id,
                ordinal=self.ordinal,
                begun_at=self.begun_at,
                kind=kind,
                offset=said.length,
                text=delta,
            )
        )
        said.take(delta)

    def count(self, usage: Usage) -> None:
        self.usage = usage

    def fail(self, attempt: Attempt) -> None:
        """This attempt failed and will be repeated."""
        self.attempts = (*self.attempts, attempt)
        key = self.key
        self.feed.publish(FailedAttempts(key.workflow_id, key.temporal_run_id, self.ordinal, self.attempts))

    def heartbeat(self) -> Heartbeat:
        text, reasoning = self._said["text"], self._said["reasoning"]
        return Heartbeat(
            attempts=self.attempts,
            begun_at=self.begun_at,
            seq=self.seq,
            offset=text.offset,
            tail=text.tail,
            reasoning_offset=reasoning.offset,
            reasoning_tail=reasoning.tail,
        )


class Generator:
    """The activity with the worker's resources."""

    def __init__(self, sessions: Sessions, feed: Feed, heartbeats: Heartbeats, settler: Settler) -> None:
        self._sessions = sessions
        self._settler = settler
        self._feed = feed
        self._heartbeats = heartbeats

    @activity.defn(name=GENERATE.name)
    async def generate(self, request: GenerateRequest) -> Generation:
        """Call the model once; Temporal repeats what is worth repeating."""
        key = calling_run()
        live = _Live(self._feed, key, request.ordinal, _earlier_attempts())
        self._sessions.called_at = time.monotonic()
        if self._sessions.is_draining:
            raise worker_leaving(live.heartbeat())
        async with self._heartbeats.beating(live.heartbeat), failures_translated():
            session = await self._sessions.at(key, request.position, request.appendix)
            session.in_use += 1
            try:
                generation = await self._call(session, request, live)
            except ApplicationError as error:
                if error.non_retryable or _is_last_attempt():
                    await self._sessions.drop(key)
                raise
            finally:
                session.in_use -= 1
                session.used_at = time.monotonic()
            generation = await self._settled(generation, live)
        message = ExpertMessage(contents=generation.contents)
        if generation.finish_reason in ("stop", "toolCalls") and message.calls:
            session.append(message)
            session.outcomes = {}
        elif generation.finish_reason == "cancelled" or (generation.finish_reason == "stop" and message.text):
            await self._sessions.drop(key)
        return generation

    async def _settled(self, generation: Generation, live: _Live) -> Generation:
        """The answer as it goes into history; a storage that is away delays it."""
        try:
            return await self._settler.settle(
                lambda: generation.model_copy(
                    update={"attempts": live.attempts, "is_draining": self._sessions.is_draining}
                )
            )
        except asyncio.CancelledError:
            if activity.is_worker_shutdown():
                raise
            return Generation(finish_reason="cancelled", usage=generation.usage, attempts=live.attempts)

    async def _call(self, session: RunSession, request: GenerateRequest, live: _Live) -> Generation:
        live.redactor = session.redactor
        limit = session.start.settings.limits.timeout_ms / 1000
        model_request = ModelRequest(
            expert=session.start.expert,
            messages=session.messages,
            tools=session.toolset.specs,
            timeout_seconds=limit,
            path=session.start.path,
            ordinal=request.ordinal,
            cache=session.cache,
            on_usage=live.count,
        )
        try:
            # A backstop: the provider ends a call at its own limit.
            async with within(time_limit_seconds()):
                provider = await session.provider()
                generation = await provider.generate(model_request, live)
            live.flush()
            return session.redactor.generation(generation)
        except asyncio.CancelledError:
            if activity.is_worker_shutdown():
                raise
            self._sessions.stir()
            return Generation(finish_reason="cancelled", usage=live.usage)
        except PerstackError as error:
            raise self._failed(error, live) from error

    def _failed(self, error: PerstackError, live: _Live) -> BaseException:
        """The failure of this attempt; one that will be repeated is left in the heartbeat for the next attempt."""
        is_provider = isinstance(error, ProviderError)
        error.message = live.redactor.text(error.message)
        if isinstance(error, ProviderError | RecordedFailure):
            failure = error.failure
        else:
            failure = Failure(name=error.code, message=error.message)
        usage = error.usage if is_provider else live.usage
        known = live.attempts
        if failure.is_retryable and not _is_last_attempt():
            now = time.time_ns() // 1_000_000
            live.fail(Attempt(failure=failure, usage=usage, at=now))
            activity.heartbeat(live.heartbeat())
        return to_application_error(
            error,
            failure=failure,
            attempts=known,
            usage=usage,
            retry_after_seconds=error.retry_after_seconds if is_provider else None,
        )


def _is_last_attempt() -> bool:
    info = activity.info()
    most = info.retry_policy.maximum_attempts if info.retry_policy else 0
    return 0 < most <= info.attempt


def _earlier_attempts() -> tuple[Attempt, ...]:
    """Failed attempts before this one, as the last of them left them in its heartbeat."""
    details = activity.info().heartbeat_details
    return Heartbeat.model_validate(details[0]).attempts if details else ()
