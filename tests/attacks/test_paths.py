"""No path takes a tool out of the workspace, into its hidden folder or to an env file in use."""

import pytest
from attacks.arena import PLANTED, TOOLS, Arena, Tool, said
from attacks.routes import PathAttack, path_attacks

# Whether a tool tells what is in the file, and whether it changes one.
_EFFECTS = {
    "readTextFile": (True, False),
    "readImageFile": (True, False),
    "readPdfFile": (True, False),
    "writeTextFile": (False, True),
    "editTextFile": (False, True),
    "addDelegateFromConfig": (True, False),
    "exec": (True, True),
}


@pytest.mark.parametrize("attack", path_attacks(), ids=str)
async def test_a_forbidden_path_leads_nowhere(arena: Arena, attack: PathAttack) -> None:
    assert await attack.run(arena) == []


@pytest.mark.parametrize("tool", TOOLS, ids=str)
async def test_the_same_tools_reach_what_is_allowed(arena: Arena, tool: Tool) -> None:
    outcome = await arena.call(tool.name, tool.args(tool.leaf))
    assert not outcome.is_error
    told = "innocent" in said(outcome)
    changed = PLANTED in "".join(path.read_text() for path in arena.root.rglob("*.txt"))
    assert (told, changed) == _EFFECTS[tool.name]
