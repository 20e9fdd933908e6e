"""Live text read from heartbeats: as whole as the feed of the worker's own process, and not an event of history."""

import asyncio
import statistics
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
from perstack.activities.feed import Feed
from perstack.client.follow import JobFollower
from perstack.client.histories import Histories
from perstack.client.history import Execution
from perstack.client.jobs import Jobs
from perstack.client.tail import HeartbeatTails
from perstack.core.deltas import Delta, LiveNews
from perstack.core.events import CompleteStreamingRunResult, Event, StreamReasoning, StreamRunResult
from support.model_server import Answer, Call, Request
from support.temporal import Bench, solo
from temporalio.client import Client

WORDS = " ".join(f"word{number}" for number in range(60))
THOUGHTS = " ".join(f"thought{number}" for number in range(40))


def talks(request: Request) -> Answer:
    """Thinks and writes for a few seconds, calls a tool, ends."""
    if request.turn == 1:
        calls = (Call(name="writeTextFile", args={"path": "a.txt", "text": "a"}),)
        return Answer(thinking=THOUGHTS, text=WORDS, calls=calls, delta_size=5, event_delay_ms=15)
    return Answer(text="done")


def hangs_half_way(_request: Request) -> Answer:
    return Answer(text="half and half", delta_size=4, after_events=4, then="hang")


def says_done(_request: Request) -> Answer:
    return Answer(text="done")


def unexpected(news: LiveNews) -> None:
    raise AssertionError(f"nobody says anything: {news}")


def joined(events: list[Event], kind: type[StreamRunResult | StreamReasoning], step: int = 1) -> str:
    return "".join(event.delta for event in events if isinstance(event, kind) and event.step_number == step)


async def types_in_history(client: Client, execution: Execution) -> list[int]:
    handle = client.get_workflow_handle(execution.workflow_id, run_id=execution.temporal_run_id)
    return [event.event_type async for event in handle.fetch_history_events()]


async def read(follower: JobFollower) -> list[Event]:
    return [event async for event in follower.events()]


@pytest.mark.requirement("runtime.deltas")
async def test_two_followers_by_heartbeats_see_the_text_and_leave_nothing_in_history(temporal: Bench) -> None:
    temporal.model.script = talks
    jobs, client = Jobs(temporal.client), temporal.client
    watched, unwatched = temporal.start(solo()), temporal.start(solo())
    said: dict[str, list[tuple[int, float]]] = {"feed": [], "tail": []}
    feed = Feed()
    feed.subscribe(times_of(said["feed"]))
    async with temporal.worker(watched.job_id, feed):
        execution = await jobs.start(watched, task_queue=watched.job_id)
        tails = HeartbeatTails(client)
        stop = tails.subscribe(times_of(said["tail"]), lambda: [execution])
        followers = [JobFollower(Histories.on(client), execution, deltas=tails) for _ in range(2)]
        seen = await asyncio.gather(*(read(follower) for follower in followers))
        stop()
    async with temporal.worker(unwatched.job_id):
        other = await jobs.start(unwatched, task_queue=unwatched.job_id)
        await read(JobFollower(Histories.on(client), other))
    assert await types_in_history(client, execution) == await types_in_history(client, other)
    for events in seen:
        text, thoughts = joined(events, StreamRunResult), joined(events, StreamReasoning)
        assert len(text) > len(WORDS) / 2
        assert WORDS.startswith(text)
        assert len(thoughts) > len(THOUGHTS) / 2
        assert THOUGHTS.startswith(thoughts)
        whole = [event.text for event in events if isinstance(event, CompleteStreamingRunResult)]
        assert whole == [WORDS, "done"]
        assert len({event.id for event in events}) == len(events)
    print_staleness(said["feed"], said["tail"])


def times_of(into: list[tuple[int, float]]) -> Callable[[LiveNews], None]:
    """Note up to which character the first text was known, and when."""

    def take(news: LiveNews) -> None:
        if isinstance(news, Delta) and news.kind == "text" and news.ordinal == 1:
            into.append((news.offset + len(news.text), time.monotonic()))

    return take


def print_staleness(feed: list[tuple[int, float]], tail: list[tuple[int, float]]) -> None:
    """How much later than in the worker's own process each character was known."""
    late: list[float] = []
    for end, at in feed:
        late += [seen - at for known, seen in tail if known >= end][:1]
    assert late, "nothing was seen while it was written"
    middle, most = statistics.median(late) * 1000, max(late) * 1000
    print(f"\ntext by heartbeats: {middle:.0f} ms behind the feed (median), {most:.0f} ms at most")  # noqa: T201


@pytest.mark.requirement("runtime.deltas")
async def test_pieces_have_the_ids_that_the_same_pieces_have_for_a_follower_in_the_process(temporal: Bench) -> None:
    # All that comes before the hang is one delta, so both lanes cut it alike.
    temporal.model.script = hangs_half_way
    start = temporal.start(solo())
    feed = Feed()
    async with temporal.worker(start.job_id, feed):
        execution = await Jobs(temporal.client).start(start, task_queue=start.job_id)
        near = JobFollower(Histories.on(temporal.client), execution, deltas=feed)
        far = JobFollower(Histories.on(temporal.client), execution, deltas=HeartbeatTails(temporal.client))

        async def read_and_release(follower: JobFollower) -> list[Event]:
            events: list[Event] = []
            async for event in follower.events():
                events.append(event)
                if follower is far and isinstance(event, StreamRunResult):
                    temporal.model.release()
            return events

        async with asyncio.timeout(30):
            by_feed, by_tail = await asyncio.gather(read_and_release(near), read_and_release(far))
    first = next(event for event in by_tail if isinstance(event, StreamRunResult))
    assert first.delta == "half"
    assert first.id in {event.id for event in by_feed}
    starts = [event.id for event in by_feed if event.type == "startStreamingRunResult"]
    assert [event.id for event in by_tail if event.type == "startStreamingRunResult"] == starts
    durable = [event.id for event in by_feed if not isinstance(event, StreamRunResult)]
    assert [event.id for event in by_tail if not isinstance(event, StreamRunResult)] == durable


def rounds(executions: list[Execution], count: int) -> tuple[Callable[[], Iterator[Execution]], asyncio.Event]:
    """What a follower with these open executions would say, and when it was asked `count` times."""
    left = iter(range(count))
    asked = asyncio.Event()

    def generating() -> Iterator[Execution]:
        if next(left, None) is None:
            asked.set()
        return iter(executions)

    return generating, asked


async def test_an_execution_that_is_closed_or_unknown_is_not_asked_about_again(
    temporal: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporal.model.script = says_done
    start = temporal.start(solo())
    await temporal.run(start)
    asked_about: list[str] = []
    service = temporal.client.workflow_service
    describe = service.describe_workflow_execution

    async def counted(request: object, **options: object) -> object:
        asked_about.append(request.execution.workflow_id)  # type: ignore
        return await describe(request, **options)  # type: ignore

    monkeypatch.setattr(service, "describe_workflow_execution", counted)
    generating, enough = rounds([Execution(start.job_id), Execution("nobody")], 3)
    stop = HeartbeatTails(temporal.client).subscribe(unexpected, generating)
    async with asyncio.timeout(20):
        await enough.wait()
    stop()
    assert sorted(asked_about) == sorted([start.job_id, "nobody"])


@asynccontextmanager
async def relay(address: str, port: int = 0) -> AsyncGenerator[int]:
    """A port that leads to the server; it is cut when the block ends."""
    host, _, target = address.rpartition(":")
    open_ends: set[asyncio.StreamWriter] = set()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        open_ends.add(sink)
        with suppress(OSError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    async def joined(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(target))
        await asyncio.gather(pump(source, back), pump(there, sink))

    server = await asyncio.start_server(joined, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for end in open_ends:
            end.transport.abort()


async def test_a_reader_whose_server_was_away_for_a_while_reads_on(temporal: Bench) -> None:
    def script(request: Request) -> Answer:
        call = Call(name="writeTextFile", args={"path": "a.txt", "text": "a"})
        text, calls = ("before", (call,)) if request.turn == 1 else ("after", ())
        return Answer(text=text, calls=calls, after_events=4, then="hang", gate=text)

    temporal.model.script = script
    start = temporal.start(solo())
    news: asyncio.Queue[LiveNews] = asyncio.Queue()
    address = temporal.client.service_client.config.target_host
    async with temporal.worker(start.job_id), asyncio.timeout(60):
        execution = await Jobs(temporal.client).start(start, task_queue=start.job_id)
        async with relay(address) as port:
            converter = temporal.client.data_converter
            client = await Client.connect(f"127.0.0.1:{port}", data_converter=converter)
            generating, _ = rounds([execution], 0)
            stop = HeartbeatTails(client).subscribe(news.put_nowait, generating)
            assert pieces_of(await news.get()) == (1, "before")
            stop()
        generating, enough = rounds([execution], 2)
        stop = HeartbeatTails(client).subscribe(news.put_nowait, generating)
        await enough.wait()
        assert news.empty()
        temporal.model.release("before")
        # While the first call is under way, its text would be the news.
        while len(temporal.model.requests) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        async with relay(address, port):
            assert pieces_of(await news.get()) == (2, "after")
            temporal.model.release("after")
            stop()
        await read(JobFollower(Histories.on(temporal.client), execution))


def pieces_of(news: LiveNews) -> tuple[int, str]:
    assert isinstance(news, Delta)
    return news.ordinal, news.text
