"""The lock has everything `pyproject.toml` asks for, by hash and without an address."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def locked() -> dict[str, str]:
    """The version of every package in the lock."""
    found = re.findall(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==([^ ;\\]+)", LOCK, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def wanted() -> Iterator[Requirement]:
    """What the project and its development groups require directly."""
    for text in PROJECT["project"]["dependencies"]:
        yield Requirement(text)
    for group in PROJECT["dependency-groups"].values():
        for item in group:
            if isinstance(item, str):
                yield Requirement(item)


def test_the_lock_satisfies_what_the_project_requires() -> None:
    versions = locked()
    missing = [
        str(one)
        for one in wanted()
        if not one.specifier.contains(versions.get(canonicalize_name(one.name), "0"), prereleases=True)
    ]
    assert missing == [], "run `make lock`"


def test_every_version_of_the_lock_has_hashes() -> None:
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    assert [entry.partition("==")[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_lock_names_no_address() -> None:
    assert "://" not in LOCK
