"""No endpoint, whatever it is called or says, leads a skill's connection to a place that is not public."""

import pytest
from attacks.addresses import NumberAttack, UrlAttack, network_attacks, number_attacks, url_attacks
from attacks.arena import Arena, Attack


@pytest.mark.parametrize("attack", [*url_attacks(), *number_attacks()], ids=str)
async def test_no_spelling_of_a_private_place_is_taken(attack: UrlAttack | NumberAttack) -> None:
    assert await attack.run() == []


@pytest.mark.parametrize("attack", [*network_attacks()], ids=str)
async def test_no_name_and_no_redirect_leads_to_a_private_place(arena: Arena, attack: Attack) -> None:
    assert await attack.run(arena) == []


async def test_a_public_endpoint_passes_the_same_checks() -> None:
    assert await UrlAttack("https://mcp.example.com/mcp").run() == [
        "the connection takes it",
        "the definition takes it",
    ]
