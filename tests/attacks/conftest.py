"""The arena of the attacks."""

from collections.abc import Iterator

import pytest
from attacks.arena import Arena


@pytest.fixture(scope="session")
def whole_arena(tmp_path_factory: pytest.TempPathFactory) -> list[Arena]:
    """The arena that is used until an attack has changed it."""
    return [Arena(tmp_path_factory.mktemp("arena"))]


@pytest.fixture
def arena(
    whole_arena: list[Arena], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Arena]:
    """An arena as nobody was in it before: making folders for each attack costs more than the attack."""
    arena = whole_arena[0]
    monkeypatch.setenv("HOME", str(arena.home))
    yield arena
    try:
        arena.reset()
    except (OSError, AssertionError):
        whole_arena[0] = Arena(tmp_path_factory.mktemp("arena"))
