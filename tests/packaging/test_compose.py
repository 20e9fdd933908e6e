"""The compose file and the image, as far as they can be checked without a container engine."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from perstack.client.connection import SEARCH_ATTRIBUTES
from perstack.client.supervisor import DYNAMIC_CONFIG
from temporalio.api.enums.v1 import IndexedValueType

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
ONE_SHOT = {"temporal-database", "temporal-namespace"}
SCRIPTS = sorted(DEPLOY.glob("*.sh"))


def variables() -> Iterator[tuple[str, str]]:
    """Every variable of the compose file with its default."""
    yield from re.findall(r"\$\{([A-Z_]+)(?::?[-?]([^}]*))?\}", TEXT)


def test_the_services_are_database_server_ui_worker_and_what_prepares_them() -> None:
    assert set(SERVICES) == {"postgresql", "temporal", "temporal-ui", "worker"} | ONE_SHOT


def test_every_service_that_stays_has_a_healthcheck() -> None:
    assert {name for name, service in SERVICES.items() if "healthcheck" in service} == set(SERVICES) - ONE_SHOT


def test_every_dependency_has_a_condition_that_can_come_true() -> None:
    for name, service in SERVICES.items():
        depends_on: dict[str, dict[str, str]] = service.get("depends_on", {})
        for other, how in depends_on.items():
            wanted = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert how == {"condition": wanted}, f"{name} on {other}"
    assert SERVICES["worker"]["depends_on"].keys() == {"temporal", "temporal-namespace"}


def test_ports_are_bound_to_the_loopback_interface() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_container_has_a_fixed_name_and_every_image_a_version() -> None:
    assert not any("container_name" in service for service in SERVICES.values())
    images = [service["image"] for service in SERVICES.values() if "image" in service]
    assert all(re.search(r":\d+", image) for image in images), images


def test_the_server_is_recent_enough_and_its_tools_are_of_the_same_version() -> None:
    version = SERVICES["temporal"]["image"].rpartition(":")[2]
    assert tuple(map(int, version.split(".")[:2])) >= (1, 29)
    assert {SERVICES[name]["image"] for name in ONE_SHOT} == {f"temporalio/admin-tools:{version}"}


def test_named_volumes_are_declared_and_every_path_exists() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", volume).partition(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_file(), f"{name}: {source}"
                assert volume.endswith(":ro"), f"{name}: {volume}"
            else:
                assert source in COMPOSE["volumes"], f"{name}: {source}"
    build = SERVICES["worker"]["build"]
    assert (ROOT / build["context"] / build["dockerfile"]).is_file()


def test_the_worker_has_an_init_and_no_rights_it_does_not_need() -> None:
    worker = SERVICES["worker"]
    assert worker["init"] is True
    assert worker["cap_drop"] == ["ALL"]
    assert worker["security_opt"] == ["no-new-privileges:true"]


def test_secrets_come_from_the_environment() -> None:
    secret = re.compile(r"PASSWORD|PWD|KEY|TOKEN|SECRET")
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if secret.search(variable):
                assert str(value).startswith("${"), f"{name}: {variable}"
    assert not any(default and secret.search(name) for name, default in variables() if not default.startswith("set "))


def test_every_variable_stands_in_the_example_with_its_default() -> None:
    example = (ROOT / ".env.example").read_text()
    for name, default in variables():
        given = re.search(rf"^#?{name}=(.*)$", example, re.MULTILINE)
        assert given, f"{name} is not in .env.example"
        if default and not default.startswith("set "):
            assert given[1] == default, name


def test_the_dynamic_configuration_is_that_of_the_embedded_server() -> None:
    document: dict[str, list[dict[str, Any]]] = yaml.safe_load((DEPLOY / "dynamicconfig.yaml").read_text())
    written = {key: str(entry["value"]).lower() for key, (entry,) in document.items()}
    assert [f"{key}={value}" for key, value in written.items()] == list(DYNAMIC_CONFIG)
    path = SERVICES["temporal"]["environment"]["DYNAMIC_CONFIG_FILE_PATH"]
    assert f"./deploy/dynamicconfig.yaml:{path}:ro" in SERVICES["temporal"]["volumes"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_used_and_can_be_parsed(script: Path) -> None:
    subprocess.run(["sh", "-n", script], check=True)
    assert f"./deploy/{script.name}:/deploy/{script.name}:ro" in TEXT
    assert f'["sh", "/deploy/{script.name}"]' in TEXT


def test_the_namespace_gets_all_search_attributes_the_query_only_on_demand() -> None:
    text = (DEPLOY / "setup-namespace.sh").read_text()
    calls = re.findall(r"^( *)register (\w+) (.+)$", text, re.MULTILINE)
    registered = {name: kind for _, kind, names in calls for name in names.split()}
    kinds = {
        IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD: "Keyword",
        IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST: "KeywordList",
        IndexedValueType.INDEXED_VALUE_TYPE_INT: "Int",
    }
    assert registered == {name: kinds[kind] for name, kind in SEARCH_ATTRIBUTES.items()}
    assert [names for indent, _, names in calls if indent] == ["PerstackQuery"]


def test_the_image_runs_as_an_ordinary_user_in_the_workspace() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER perstack$", last, re.MULTILINE)
    assert re.search(r"^WORKDIR /workspace$", last, re.MULTILINE)
    assert "PERSTACK_SANDBOX=1" in last
    assert "--compile-bytecode" in DOCKERFILE


def test_the_image_is_built_with_the_tools_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    version = re.search(r"^UV_VERSION := (\S+)$", makefile, re.MULTILINE)
    assert version
    assert f"uv=={version[1]}" in DOCKERFILE
    python = re.search(r"^ARG PYTHON_VERSION=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert python
    assert tuple(map(int, python[1].split("."))) >= (3, 11)


def test_the_image_gets_the_package_and_nothing_else() -> None:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignore if line.startswith("!")}
    packages = {name.split(".")[1] for name in project["tool"]["setuptools"]["packages"] if "." in name}
    modules = {path.name for path in ROOT.glob("*.py")}
    others = {"py.typed", "pyproject.toml", "requirements.lock", "README.md", "LICENSE", "deploy/healthcheck.py"}
    assert kept == packages | modules | others
    assert all((ROOT / name).exists() for name in kept)
    copied = {
        name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for name in line.split()
    }
    assert copied - {"."} <= kept
