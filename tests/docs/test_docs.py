"""The documentation says what is: generated parts are current, links lead somewhere, samples load, names exist."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from perstack.cli.app import app
from perstack.cli.diagnostics import ExitCode
from perstack.core.models import TIERS
from perstack.definitions import schema
from perstack.definitions.load import load_text
from perstack.definitions.resolve import resolve_job

ROOT = Path(__file__).parents[2]
TOP = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
PAGES = [*TOP, *sorted((ROOT / "docs").rglob("*.md"))]
DECISIONS = sorted((ROOT / "docs/decisions").glob("*.md"))
NOT_PRODUCT = {"build", "bench", "deploy", "dist", "docs", "examples", "tests", "typings"}
SET_BY_US = {
    "PERSTACK_EXEC_ID",
    "TEMPORAL_POLL_SHUTDOWN_INTERRUPT_WAIT_MS",
    "TEMPORAL_VERSION_CHECK_DISABLED",
}
"""Variables that we give to others and never read."""
ONLY_REFUSED = {"ANTHROPIC_AUTH_TOKEN", "PERSTACK_API_KEY"}
"""Variables that a definition may not require; no code reads them."""


def page_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """What links to the sections of a page may say."""
    headings = re.findall(r"^#+ (.+)$", prose(path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_generated_parts_are_current() -> None:
    command = [sys.executable, "-P", ROOT / "docs/generate.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_to_files_and_sections_that_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, section = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        assert not section or section in anchors(path), target


def samples() -> Iterator[tuple[str, str]]:
    """Every TOML sample with its place."""
    for page in PAGES:
        for number, text in enumerate(blocks(page.read_text(), "toml"), 1):
            yield f"{page_id(page)} {number}", text


SAMPLES = dict(samples())


@pytest.mark.parametrize("place", SAMPLES)
def test_a_sample_is_a_definition_that_this_release_runs(place: str, tmp_path: Path) -> None:
    loaded = load_text(SAMPLES[place], source=place)
    assert loaded.own_experts
    for key in loaded.own_experts:
        job = resolve_job(loaded, key, host_env={}, cwd=tmp_path, runtime_version="0.1.0")
        assert job.warnings == ()


def test_the_reference_of_the_definition_names_every_key() -> None:
    text = (ROOT / "docs/reference/perstack-toml.md").read_text()
    tables = [one for one in vars(schema).values() if isinstance(one, type) and issubclass(one, schema.Table)]
    keys = set[str]().union(*(table.known_keys() for table in tables))
    assert len(keys) > 40
    assert sorted(key for key in keys if f"`{key}`" not in text) == []


def test_the_reference_names_the_models_of_the_tiers() -> None:
    text = (ROOT / "docs/reference/perstack-toml.md").read_text()
    for tier, entry in TIERS["anthropic"].items():
        assert f"| `{tier}` | `{entry.model}` |" in text


@pytest.mark.parametrize("name", ["README.md", "docs/reference/cli.md"])
def test_the_tables_of_exit_codes_are_complete(name: str) -> None:
    codes = re.findall(r"^\| (\d+) \|", (ROOT / name).read_text(), re.MULTILINE)
    assert list(map(int, codes)) == list(ExitCode)


def invocations() -> Iterator[tuple[str, list[str]]]:
    """Every `perstack …` that a page tells to type: in console blocks, comment lines and inline code."""
    for page in PAGES:
        # The status table names commands of the whole matrix, open ones too.
        text = re.sub(r"<!-- status: begin -->.*<!-- status: end -->", "", page.read_text(), flags=re.DOTALL)
        lines = [line for block in blocks(text, "console") for line in block.splitlines()]
        for line in (*lines, *re.findall(r"`([^`\n]+)`", prose(text))):
            for words in re.findall(r"(?:^|[ /])perstack ((?:[a-z]|--).*)", line.partition("  #")[0]):
                yield f"{page_id(page)}: {line}", words.split()


def test_commands_and_options_in_the_pages_exist() -> None:
    group = typer.main.get_command(app)
    commands = {found.name or getattr(found.callback, "__name__", "") for found in app.registered_commands}
    seen: set[str] = set()
    for place, (first, *words) in invocations():
        if first.startswith("--"):
            words, command = [first, *words], group
        else:
            assert first in commands, place
            seen.add(first)
            command = getattr(group, "commands")[first]  # noqa: B009 the group's class is not public
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        given = {word for word in words if re.fullmatch(r"--[a-z-]+", word)}
        assert given <= known | {"--help"}, place
    assert seen == commands


def test_every_variable_that_the_program_reads_is_in_the_example() -> None:
    example = (ROOT / ".env.example").read_text()
    read: set[str] = set()
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).parts
        if parts[0] in NOT_PRODUCT or parts[0].startswith("."):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                read.update(re.findall(r"\b(?:PERSTACK|TEMPORAL|ANTHROPIC)_[A-Z_]*[A-Z]\b", node.value))
    missing = [name for name in read - SET_BY_US - ONLY_REFUSED if not _stands_in(name, example)]
    assert sorted(missing) == []


def _stands_in(name: str, example: str) -> bool:
    return re.search(rf"^#?{name}=", example, re.MULTILINE) is not None


def test_decisions_are_numbered_and_have_context_decision_and_consequence() -> None:
    assert [path.name[:4] for path in DECISIONS] == [f"{number:04}" for number in range(1, len(DECISIONS) + 1)]
    for path in DECISIONS:
        text = path.read_text()
        assert text.startswith(f"# {path.name[:4]} · "), path.name
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequence"], path.name


def test_fragments_of_the_changelog_have_a_known_kind_and_one_paragraph() -> None:
    kinds = "added|changed|deprecated|removed|fixed|security"
    for path in sorted((ROOT / "changelog.d").iterdir()):
        assert re.fullmatch(rf"(\d+|\+[a-z0-9-]+)\.({kinds})\.md", path.name), path.name
        assert "\n\n" not in path.read_text().strip(), path.name
