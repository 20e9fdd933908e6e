"""What several histories tell, in the order in which it happened."""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Generic, TypeVar

T = TypeVar("T")


class Chronology(Generic[T]):
    """Merges histories that are read side by side: hands out what none of them can still precede.

    A history is named, and tells its times in order. What two tell of the same time comes as it was put.
    """

    def __init__(self, hand_out: Callable[[T], None]) -> None:
        self._hand_out = hand_out
        self._waiting: list[tuple[int, int, T]] = []
        self._reached: dict[str, int] = {}
        self._count = 0

    def reach(self, history: str, at: int) -> None:
        """A history is open, and has been read up to `at`; nothing of it is earlier any more."""
        self._reached[history] = max(at, self._reached.get(history, at))
        self._settle()

    def put(self, history: str, item: T) -> None:
        """Something that a history tells of the time that it has reached."""
        self._count += 1
        heappush(self._waiting, (self._reached[history], self._count, item))

    def end(self, history: str) -> None:
        """Nothing more comes of a history."""
        self._reached.pop(history, None)
        self._settle()

    def _settle(self) -> None:
        earliest = min(self._reached.values(), default=None)
        while self._waiting and (earliest is None or self._waiting[0][0] < earliest):
            self._hand_out(heappop(self._waiting)[2])


class AsTold(Chronology[T]):
    """The same for who follows what happens now: nothing is held back, whatever else is still being read."""

    def reach(self, history: str, at: int) -> None:
        """No time is waited for."""

    def put(self, history: str, item: T) -> None:
        """It is handed out at once."""
        self._hand_out(item)
