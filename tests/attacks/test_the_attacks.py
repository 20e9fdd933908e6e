"""The attacks themselves: enough of them, and each check that somebody breaks lets one of them through."""

from pathlib import Path

import pytest
from attacks.addresses import network_attacks, number_attacks, url_attacks
from attacks.arena import Arena
from attacks.commands import environment_attacks, metacharacter_attacks, process_attacks
from attacks.races import stepped_races, thread_races
from attacks.routes import path_attacks
from attacks.unsafe import VARIANTS, Variant


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
async def test_a_broken_check_lets_an_attack_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: Variant
) -> None:
    attacks = variant.relevant()
    assert attacks
    variant.apply(monkeypatch)
    for number, attack in enumerate(attacks):
        (tmp_path / str(number)).mkdir()
        arena = Arena(tmp_path / str(number))
        monkeypatch.setenv("HOME", str(arena.home))
        try:
            damage = await attack.run(arena)
        finally:
            arena.end_processes()
        if damage:
            return
    pytest.fail(f"none of {len(attacks)} attacks noticed that {variant}")


def test_there_are_many_attacks_of_every_kind_and_each_has_a_name_of_its_own() -> None:
    kinds = {
        "paths": [*path_attacks()],
        "races": [*stepped_races(), *thread_races()],
        "commands": [*metacharacter_attacks(), *process_attacks()],
        "environment": [*environment_attacks()],
        "endpoints": [*url_attacks(), *number_attacks(), *network_attacks()],
    }
    for kind, attacks in kinds.items():
        names = [str(attack) for attack in attacks]
        assert len(names) >= 60, kind
        assert len(set(names)) == len(names), kind
