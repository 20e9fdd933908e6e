"""Live deltas inside one process: `generate` publishes, a follower of the same process subscribes."""

from collections.abc import Callable

from ..core.deltas import LiveNews

Subscriber = Callable[[LiveNews], None]


class Feed:
    """Hands every piece of news to every subscriber at once; with none it costs nothing."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber, generating: Callable[[], object] | None = None) -> Callable[[], None]:
        """Call `subscriber` with everything from now on; returns how to stop that.

        What `generating` tells is for sources that have to ask (`client/tail.py`); here news come by themselves.
        """
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def publish(self, news: LiveNews) -> None:
        """Hand out one piece."""
        for subscriber in tuple(self._subscribers):
            subscriber(news)
