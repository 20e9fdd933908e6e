"""Histories that are read side by side come out as one story."""

from perstack.client.chronology import Chronology


def test_nothing_is_told_that_another_history_may_still_precede() -> None:
    told = list[str]()
    past = Chronology[str](told.append)
    past.reach("a", 10)
    past.put("a", "a10")
    past.reach("b", 10)
    past.reach("a", 30)
    past.put("a", "a30")
    assert told == []
    past.reach("b", 20)
    past.put("b", "b20")
    assert told == ["a10"]
    past.end("b")
    assert told == ["a10", "b20"]
    past.end("a")
    assert told == ["a10", "b20", "a30"]


def test_what_is_of_the_same_time_comes_as_it_was_put() -> None:
    told = list[str]()
    past = Chronology[str](told.append)
    for history in ("parent", "child"):
        past.reach(history, 5)
    past.put("child", "child ends")
    past.put("parent", "parent hears of it")
    past.put("child", "a word more")
    past.end("child")
    past.end("parent")
    assert told == ["child ends", "parent hears of it", "a word more"]


def test_a_history_that_tells_an_earlier_time_late_keeps_its_own_order() -> None:
    told = list[str]()
    past = Chronology[str](told.append)
    past.reach("a", 20)
    past.put("a", "cancelled")
    past.reach("a", 15)
    past.put("a", "what had come before")
    past.end("a")
    assert told == ["cancelled", "what had come before"]
