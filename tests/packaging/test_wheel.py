"""What users install: the wheel made from the source distribution, in an environment of its own."""

import ast
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Building takes seconds; a second test process would build again.
pytestmark = pytest.mark.xdist_group("wheel")

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES: list[str] = PROJECT["tool"]["setuptools"]["packages"]
OUTSIDE = {"tests", "bench", "docs", "deploy", "examples", "typings", "build", "dist"}
DATA = {
    "perstack/py.typed",
    "perstack/definitions/create-expert/perstack.toml",
    *(f"perstack/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "cli" / "tui").rglob("*.tcss")),
}


def source_folders() -> Iterator[Path]:
    """Every folder of the package with Python files in it."""
    yield ROOT
    for path in sorted(ROOT.iterdir()):
        if path.is_dir() and path.name not in OUTSIDE and not path.name.startswith((".", "__")):
            for folder in (path, *sorted(one for one in path.rglob("*") if one.is_dir())):
                if any(folder.glob("*.py")):
                    yield folder


def package_name(folder: Path) -> str:
    return ".".join(("perstack", *folder.relative_to(ROOT).parts))


def package_files() -> set[str]:
    """The modules a wheel has to hold."""
    return {
        f"perstack/{path.relative_to(ROOT).as_posix()}" for folder in source_folders() for path in folder.glob("*.py")
    }


def test_the_list_of_packages_is_the_tree() -> None:
    assert sorted(package_name(folder) for folder in source_folders()) == PACKAGES


def test_every_folder_with_modules_is_a_package() -> None:
    assert [folder for folder in source_folders() if not (folder / "__init__.py").exists()] == []


def test_the_root_holds_no_stray_module() -> None:
    assert {path.name for path in ROOT.glob("*.py")} == {
        *("__init__.py", "__main__.py", "plugin.py", "settings.py", "worker.py")
    }


def test_both_places_of_the_version_agree() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text())
    values = {
        target.id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert values["__version__"] == PROJECT["project"]["version"]


@dataclass(frozen=True)
class Built:
    """What one build left."""

    wheel: Path
    source: Path

    @property
    def names(self) -> set[str]:
        """The files of the wheel."""
        with zipfile.ZipFile(self.wheel) as archive:
            return set(archive.namelist())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A source distribution and the wheel made of it, without network."""
    folder = tmp_path_factory.mktemp("dist")
    # The build backend works in a copy: what it would leave in the sources could get into the next wheel.
    copy = tmp_path_factory.mktemp("copy") / "clone"
    subprocess.run(["cp", "-R", *(str(path) for path in sources()), _made(copy)], check=True)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,) = folder.glob("*.whl")
    (source,) = folder.glob("*.tar.gz")
    return Built(wheel, source)


def sources() -> list[Path]:
    """What a checkout has at its root; tests and benchmarks as well, for they must be left out by the build itself."""
    left_out = {"typings", "build", "dist"}
    return [
        path
        for path in sorted(ROOT.iterdir())
        if path.name not in left_out and not path.name.startswith(".") and path.suffix != ".egg-info"
    ]


def _made(folder: Path) -> str:
    folder.mkdir()
    return str(folder)


def test_the_wheel_holds_the_package_and_its_data_and_nothing_else(built: Built) -> None:
    files = {name for name in built.names if ".dist-info/" not in name}
    assert files == package_files() | DATA


def test_the_source_distribution_holds_what_the_wheel_is_made_of(built: Built) -> None:
    with tarfile.open(built.source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {name.removeprefix("perstack/") for name in package_files() | DATA}
    assert wanted | {"pyproject.toml", "README.md", "LICENSE"} <= names


def test_the_metadata_says_licence_and_python(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        (name,) = (one for one in built.names if one.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    assert "\nRequires-Python: >=3.11\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert any(one.endswith("/licenses/LICENSE") for one in built.names)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs folder of an environment with the wheel in it; dependencies are those of the tests."""
    home = tmp_path_factory.mktemp("fresh")
    venv.create(home, with_pip=False, symlinks=True)
    programs = home / "bin"
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", programs / "python", built.wheel]
    subprocess.run(command, check=True, timeout=60)
    (packages,) = home.glob("lib/python*/site-packages")
    # A path that a .pth file adds is no site folder itself: the editable install of the tests stays out of sight.
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    (packages / "dependencies.pth").write_text(f"{ours}\n")
    return programs


def run(program: Path, *args: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([program, *args], cwd=folder, capture_output=True, text=True, timeout=60)


def test_the_installed_program_runs_from_any_folder(installed: Path, tmp_path: Path) -> None:
    done = run(installed / "perstack", "--version", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"perstack {PROJECT['project']['version']}\n")


def test_the_installed_package_brings_its_built_in_team(installed: Path, tmp_path: Path) -> None:
    code = (
        "import perstack, perstack.worker; from perstack.definitions.load import builtin_config; "
        "print(perstack.__file__); print(*builtin_config().toml.experts)"
    )
    done = run(installed / "python", "-P", "-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    place, experts = done.stdout.splitlines()
    assert Path(place).is_relative_to(installed.parent)
    assert experts.split()[0] == "create-expert"


def test_the_installed_program_explains_a_missing_definition(installed: Path, tmp_path: Path) -> None:
    done = run(installed / "perstack", "run", "nobody", "hello", folder=tmp_path)
    assert done.returncode == 2
    assert "perstack.toml not found" in done.stderr
