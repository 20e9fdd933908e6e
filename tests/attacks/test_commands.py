"""What `exec` and skills get of the worker, and what they may leave behind: nothing more than they should."""

import pytest
from attacks.arena import Arena, Attack
from attacks.commands import environment_attacks, metacharacter_attacks, process_attacks
from support.skills import zombies


@pytest.mark.parametrize("attack", [*metacharacter_attacks(), *environment_attacks()], ids=str)
async def test_nothing_but_the_program_sees_its_arguments_and_it_sees_nothing_of_ours(
    arena: Arena, attack: Attack
) -> None:
    assert await attack.run(arena) == []


@pytest.mark.parametrize("attack", [*process_attacks()], ids=str)
async def test_no_process_stays_and_no_flood_comes_through(arena: Arena, attack: Attack) -> None:
    assert await attack.run(arena) == []
    assert zombies() == []
