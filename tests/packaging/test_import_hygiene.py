"""What importing costs: help loads no library, the workflow only what the sandbox may load."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARIES = {
    "anthropic",
    "boto3",
    "botocore",
    "genai_prices",
    "httpx2",
    "jsonschema",
    "mcp",
    "mcp_types",
    "openai",
    "puremagic",
    "temporalio",
    "textual",
}
PYDANTIC = {"annotated_types", "pydantic", "pydantic_core", "typing_extensions", "typing_inspection"}
TEMPORAL = {"google", "nexusrpc", "temporalio"}

COMMAND = """
import json, sys
before = set(sys.modules)
sys.argv = ["perstack", *sys.argv[1:]]
from perstack.__main__ import main
try:
    main()
finally:
    sys.stderr.write(json.dumps(sorted(set(sys.modules) - before)))
"""
MODULE = """
import importlib, json, sys
before = set(sys.modules)
importlib.import_module(sys.argv[1])
sys.stderr.write(json.dumps(sorted(set(sys.modules) - before)))
"""
EVERY_MODULE = """
import importlib, json, pkgutil, sys
before = set(sys.modules)
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
sys.stderr.write(json.dumps(sorted(set(sys.modules) - before)))
"""


def loaded(code: str, *args: str, folder: Path) -> set[str]:
    """The modules that `code` loads in an interpreter of its own."""
    command = [sys.executable, "-P", "-c", code, *args]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr))


def top(modules: set[str]) -> set[str]:
    """The libraries of these modules, the standard library and the package itself left out."""
    names = {name.partition(".")[0] for name in modules if not name.startswith("_sysconfigdata")}
    return names - set(sys.stdlib_module_names) - {"perstack"}


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_no_library_but_the_one_for_commands(option: str, tmp_path: Path) -> None:
    modules = loaded(COMMAND, option, folder=tmp_path)
    assert top(modules) & (LIBRARIES | PYDANTIC) == set()
    assert {name for name in modules if name.startswith("perstack.")} <= {
        "perstack.__main__",
        "perstack.cli",
        "perstack.cli.app",
    }


@pytest.mark.parametrize("command", ["run", "resume", "log", "doctor", "worker", "dev"])
def test_the_help_of_a_command_loads_no_sdk(command: str, tmp_path: Path) -> None:
    assert top(loaded(COMMAND, command, "--help", folder=tmp_path)) & LIBRARIES == set()


def test_the_workflow_loads_pydantic_temporalio_and_the_core_only(tmp_path: Path) -> None:
    modules = loaded(MODULE, "perstack.workflows.expert_run", folder=tmp_path)
    assert top(modules) <= PYDANTIC | TEMPORAL
    ours = {name for name in modules if name.startswith("perstack.")}
    assert {name.split(".")[1] for name in ours} == {"core", "workflows"}


def test_the_screens_load_textual_and_the_core_and_nothing_of_what_is_behind_the_backend(tmp_path: Path) -> None:
    modules = loaded(EVERY_MODULE, "perstack.cli.tui", folder=tmp_path)
    assert {"perstack.cli.tui.app", "perstack.cli.tui.screens.run", "perstack.cli.tui.widgets.log"} <= modules
    assert top(modules) & (LIBRARIES | TEMPORAL) == {"textual"}
    assert {name.split(".")[1] for name in modules if name.startswith("perstack.")} == {"cli", "core"}


@pytest.mark.parametrize("module", ["perstack.worker", "perstack.cli.commands.run", "perstack.cli.commands.resume"])
def test_who_works_on_runs_loads_no_sdk_before_a_run_needs_it(module: str, tmp_path: Path) -> None:
    needed = {"httpx2", "jsonschema", "puremagic", "temporalio"}
    assert top(loaded(MODULE, module, folder=tmp_path)) & LIBRARIES <= needed


def test_the_package_itself_loads_nothing(tmp_path: Path) -> None:
    modules = loaded(MODULE, "perstack", folder=tmp_path)
    assert top(modules) == set()
    assert {name for name in modules if name.startswith("perstack")} == {"perstack"}


def test_the_core_loads_pydantic_only(tmp_path: Path) -> None:
    modules = loaded(MODULE, "perstack.core.machine", folder=tmp_path)
    assert top(modules) <= PYDANTIC
    assert {name.split(".")[1] for name in modules if name.startswith("perstack.")} == {"core"}
