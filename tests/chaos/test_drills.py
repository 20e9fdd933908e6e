"""The drills in short: each at one random point; `make chaos` plays them at many."""

import os
import secrets
from pathlib import Path

import pytest
from chaos.harness import Ground
from chaos.registry import DRILLS
from perstack.client.locations import DataFolder

SHORT = {name: drill for name, drill in DRILLS.items() if not drill.is_long}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SHORT)
async def test_a_drill_holds_at_a_random_point(
    name: str, tmp_path: Path, temporal_program: Path, server_data: DataFolder
) -> None:
    seed = int(os.environ.get("SEED") or secrets.randbelow(1_000_000))
    report = await Ground(tmp_path, temporal_program, seed).play(SHORT[name], 0, server_data, is_short=True)
    print(f"\nSEED={seed} {name}: {report.where}")  # noqa: T201
