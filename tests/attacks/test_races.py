"""Whatever changes while a tool looks, it ends inside or not at all."""

import pytest
from attacks.arena import Arena, Attack
from attacks.races import stepped_races, thread_races


@pytest.mark.parametrize("attack", [*stepped_races(), *thread_races()], ids=str)
async def test_a_race_leads_nowhere(arena: Arena, attack: Attack) -> None:
    assert await attack.run(arena) == []
