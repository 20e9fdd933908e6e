"""Overlapping tails of a model call become each piece of its text once, and heartbeats slow down in a crowd."""

import pytest
from perstack.activities.boundary import BEATS_PER_SECOND, Heartbeats
from perstack.client.history import Execution
from perstack.client.tail import CallReading
from perstack.core.deltas import Delta, FailedAttempts, LiveNews
from perstack.core.failures import Attempt, Failure
from perstack.workflows.contracts import Heartbeat

TEXT = "The quick brown fox jumps over the lazy dog."


def reading() -> CallReading:
    return CallReading(Execution("job/run", "execution"), ordinal=3)


def beat(text: str, *, tail: int = 10, begun_at: int = 1000, failed: tuple[Attempt, ...] = ()) -> Heartbeat:
    """What a call that has written `text` so far reports."""
    offset = max(0, len(text) - tail)
    return Heartbeat(attempts=failed, begun_at=begun_at, offset=offset, tail=text[offset:])


def failed(at: int) -> Attempt:
    return Attempt(failure=Failure(name="provider.overloaded", message="busy", is_retryable=True), at=at)


def pieces(news: list[LiveNews]) -> list[tuple[str, int, str]]:
    return [(one.kind, one.offset, one.text) for one in news if isinstance(one, Delta)]


def test_overlapping_tails_join_to_the_whole_text() -> None:
    call = reading()
    ends = (4, 4, 9, 19, 20, 30, 39, len(TEXT))
    read = [piece for end in ends for piece in pieces(call.news(beat(TEXT[:end])))]
    assert "".join(text for _, _, text in read) == TEXT
    offset = 0
    for _, begin, text in read:
        assert begin == offset
        offset += len(text)


def test_a_tail_that_was_read_already_is_no_news() -> None:
    call = reading()
    call.news(beat(TEXT[:7]))
    assert call.news(beat(TEXT[:7])) == []
    assert call.news(Heartbeat(begun_at=1000)) == []


def test_what_was_written_between_two_looks_and_has_left_the_tail_is_a_gap() -> None:
    call = reading()
    assert pieces(call.news(beat(TEXT[:5]))) == [("text", 0, TEXT[:5])]
    assert pieces(call.news(beat(TEXT[:30]))) == [("text", 20, TEXT[20:30])]
    assert pieces(call.news(beat(TEXT[:33]))) == [("text", 30, TEXT[30:33])]


def test_a_reader_that_comes_late_begins_with_the_tail_there_is() -> None:
    assert pieces(reading().news(beat(TEXT))) == [("text", len(TEXT) - 10, TEXT[-10:])]


def test_reasoning_and_text_are_read_apart_and_reasoning_comes_first() -> None:
    call = reading()
    first = Heartbeat(begun_at=1, reasoning_tail="hmm", tail="")
    second = Heartbeat(begun_at=1, reasoning_offset=2, reasoning_tail="m, so", offset=0, tail="It is")
    assert pieces(call.news(first)) == [("reasoning", 0, "hmm")]
    assert pieces(call.news(second)) == [("reasoning", 3, ", so"), ("text", 0, "It is")]


def test_another_attempt_begins_the_text_anew_even_where_it_says_the_same() -> None:
    call = reading()
    assert pieces(call.news(beat(TEXT[:8]))) == [("text", 0, TEXT[:8])]
    again = call.news(beat(TEXT[:6], begun_at=2000))
    assert pieces(again) == [("text", 0, TEXT[:6])]
    assert [one.begun_at for one in again if isinstance(one, Delta)] == [2000]


def test_the_last_words_of_an_attempt_that_failed_come_before_its_failure_and_both_once() -> None:
    call = reading()
    call.news(beat(TEXT[:4]))
    last = beat(TEXT[:8], failed=(failed(1500),))
    delta, failure = call.news(last)
    assert isinstance(delta, Delta)
    assert (delta.offset, delta.text) == (4, TEXT[4:8])
    assert failure == FailedAttempts("job/run", "execution", 3, (failed(1500),))
    # The next attempt has not said anything yet: the server still shows what the last one left.
    assert call.news(last) == []
    assert call.news(Heartbeat(attempts=(failed(1500),), begun_at=2000)) == []


def test_failures_that_nobody_looked_at_in_time_come_before_the_text_of_the_attempt_after_them() -> None:
    known = (failed(1500), failed(2500))
    first, second = reading().news(beat("Now", begun_at=3000, failed=known))
    assert isinstance(first, FailedAttempts)
    assert first.attempts == known
    assert isinstance(second, Delta)


def test_a_call_repeated_after_its_worker_was_lost_tells_of_its_own_failures() -> None:
    call = reading()
    call.news(beat("One", failed=(failed(1100), failed(1200)), begun_at=1300))
    assert [type(one) for one in call.news(beat("Two", begun_at=5000))] == [Delta]
    assert call.news(beat("Two", failed=(failed(5500),), begun_at=5000)) == [
        FailedAttempts("job/run", "execution", 3, (failed(5500),))
    ]


@pytest.mark.parametrize(
    ("live", "seconds"),
    [(1, 0.5), (BEATS_PER_SECOND // 2, 0.5), (16, 0.8), (BEATS_PER_SECOND * 50, 1.0)],
)
def test_the_more_calls_a_worker_has_the_more_slowly_each_beats_up_to_a_third_of_the_timeout(
    live: int, seconds: float
) -> None:
    assert Heartbeats(0.5).interval(live=live, timeout_seconds=3) == pytest.approx(seconds)


@pytest.mark.parametrize(("asked", "given"), [(0.0, 0.1), (0.2, 0.2), (60.0, 1.0)])
def test_an_interval_that_is_asked_for_is_kept_where_a_worker_stays_alive_with_it(asked: float, given: float) -> None:
    assert Heartbeats(asked).interval(live=1, timeout_seconds=3) == pytest.approx(given)
