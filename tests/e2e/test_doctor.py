"""`perstack doctor`: every check has a line and a remedy, none stops the others, nothing is started or told away."""

import asyncio
import json
import re
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from perstack.cli.checks.machine import LEAST_BYTES, LOW_BYTES, space_check
from perstack.client.locations import DataFolder
from support.cli import Cli, Result
from support.mcp_servers import leftovers, modern_over_http
from support.model_server import ModelServer
from support.skills import Signal

SOLO = """
[experts.solo]
instruction = "You are solo."
"""
SERVER = '''
import os, subprocess, sys
from mcp.server import MCPServer

server = MCPServer("tester")
sys.stderr.write("up \\x1b[31mred\\n")
with open("starts", "a") as file:
    file.write("start\\n")

@server.tool()
def first(a: int) -> int:
    """One."""
    return a

@server.tool()
def exec(a: int) -> int:
    """Called like a tool of the base skill."""
    return a

server.run("stdio")
'''
TOKEN = "tok-planted-0123456789"
KEY = "sk-ant-planted-0123456789"
WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Line:
    """One check as it was printed, with the lines below it."""

    status: str
    label: str
    text: str
    more: tuple[str, ...] = ()

    @property
    def hint(self) -> str:
        """The remedy, all of it."""
        texts = [text.strip() for text in self.more]
        start = next((index for index, text in enumerate(texts) if text.startswith("hint: ")), len(texts))
        return "\n".join(texts[start:])


def checks(result: Result) -> list[Line]:
    """The checks in order; the layout of the output is part of what is tested."""
    assert "Traceback" not in result.stderr, result.stderr
    assert result.stderr == ""
    *printed, summary = result.stdout.splitlines()
    assert re.fullmatch(r"(Nothing that a run needs is missing|\d+ checks? failed, ).*", summary), summary
    found: list[Line] = []
    for text in printed:
        match = re.fullmatch(r"(ok|warn|fail|–) +(\S(?:.*?\S)?) {2,}(\S.*)", text)
        if match and not text.startswith(" "):
            assert text.index(match[3]) == 20, text
            found.append(Line(match[1], match[2], match[3]))
        else:
            assert text.startswith(" " * 20), text
            found[-1] = replace(found[-1], more=(*found[-1].more, text[20:]))
    for line in found:
        assert line.status != "fail" or line.hint, f"no remedy: {line}"
    return found


def of(result: Result, label: str) -> list[Line]:
    """The checks with this label."""
    return [line for line in checks(result) if line.label == label]


def skill(name: str, script: str, *, expert: str = "solo", more: str = "") -> str:
    """A skill that is a Python program of the workspace."""
    return f"""
[experts.{expert}.skills.{name}]
type = "mcpStdioSkill"
command = {json.dumps(sys.executable)}
args = ["-P", {json.dumps(script)}]
{more}
"""


def processes(cli: Cli) -> list[str]:
    """What still runs with the home folder of these commands."""
    return [one for one in leftovers(cli.env["HOME"]) if one.startswith("process")]


@pytest.fixture
def fresh(tmp_path: Path) -> dict[str, str]:
    """A data folder that nobody has used, and a credential."""
    return {"PERSTACK_DATA_DIR": str(tmp_path / "fresh"), "ANTHROPIC_API_KEY": KEY}


async def test_with_everything_there_each_check_is_told_and_the_code_is_0(
    cli: Cli, model: ModelServer, model_env: dict[str, str], server_data: DataFolder
) -> None:
    cli.write("server.py", SERVER)
    cli.write("perstack.toml", SOLO + skill("tester", "server.py", more='requiredEnv = ["TOKEN"]'))
    cli.write(".env.local", f"TOKEN={TOKEN}\n")
    await cli.run("log", "--job", "starts-the-server")
    address = json.loads(server_data.record.read_text())["address"]
    result = await cli.run("doctor", env=model_env)
    assert result.code == 0, result.stdout
    found = {line.label: line for line in checks(result) if line.status in ("ok", "–")}
    assert list(found) == [
        *("perstack", "settings", "data folder", "storage", "workspace", "temporal", "server", "definition", "lock"),
        *("env files", "provider", "credentials", "skills"),
    ]
    assert "Python 3." in found["perstack"].text
    assert f"embedded server at {address}, version 1." in found["server"].text
    assert cli.env["PERSTACK_TEMPORAL_CLI"] in found["temporal"].text
    assert found["definition"].text == f"{cli.workspace}/perstack.toml, 1 expert"
    assert found["env files"].text == f"{cli.workspace}/.env.local (1 variable)"
    assert found["provider"].text == f"anthropic at {model.url} (ANTHROPIC_BASE_URL in the environment); not contacted"
    assert found["credentials"].text == "ANTHROPIC_API_KEY is set in the environment"
    timing = r"\d+ ms \(spawn \d+, handshake \d+, discovery \d+\)"
    assert re.fullmatch(rf"tester \(solo\): 2 tools, {timing}, tester.*", found["skills"].text)
    assert result.stdout.splitlines()[-1].startswith("Nothing that a run needs is missing: ")
    assert "\x1b" not in result.stdout
    assert model.requests == []
    assert sorted(path.name for path in cli.workspace.iterdir()) == [
        ".env.local",
        "perstack.toml",
        "server.py",
        "starts",
    ]


async def test_no_server_is_started_and_no_folder_is_made(cli: Cli, fresh: dict[str, str]) -> None:
    cli.write("perstack.toml", SOLO)
    result = await cli.run("doctor", env=fresh)
    assert result.code == 0, result.stdout
    [server] = of(result, "server")
    assert (server.status, "is not running" in server.text) == ("–", True)
    assert "made at its first use" in of(result, "data folder")[0].text
    assert not Path(fresh["PERSTACK_DATA_DIR"]).exists()
    assert [path.name for path in cli.workspace.iterdir()] == ["perstack.toml"]
    assert processes(cli) == []


async def test_without_a_definition_the_built_in_experts_are_what_can_run(cli: Cli, fresh: dict[str, str]) -> None:
    result = await cli.run("doctor", env=fresh)
    assert result.code == 0, result.stdout
    [line] = of(result, "definition")
    assert line.status == "warn"
    assert "perstack run create-expert" in line.hint


@dataclass(frozen=True, kw_only=True)
class Bad:
    """Something a run could not do with, the check that finds it, and its remedy."""

    label: str
    code: int
    says: tuple[str, ...]
    hints: tuple[str, ...]
    args: tuple[str, ...] = ()
    toml: str = SOLO
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    env: Mapping[str, str] = field(default_factory=dict[str, str])


OLD = b"#!/bin/sh\necho 'temporal version 1.0.0 (Server 1.20.3, UI 2.0.0)'\n"
OTHER = b"#!/bin/sh\necho 'a program of another kind'\n"
STUCK = b"#!/bin/sh\nprintenv ANTHROPIC_API_KEY\nexit 7\n"
CRASH = 'import sys; sys.stderr.write("no licence\\n"); sys.exit(3)'
REMOTE = SOLO + '[experts.solo.skills.far]\ntype = "mcpSseSkill"\nendpoint = "{url}"\n'

BAD: dict[str, Bad] = {
    "data folder below a file": Bad(
        label="data folder",
        code=2,
        files={"file": b""},
        env={"PERSTACK_DATA_DIR": "{workspace}/file/data"},
        says=("{workspace}/file/data cannot be used: Not a directory",),
        hints=("PERSTACK_DATA_DIR",),
    ),
    "payload storage is a file": Bad(
        label="data folder",
        code=2,
        files={"data/storage": b""},
        env={"PERSTACK_DATA_DIR": "{workspace}/data"},
        says=("Not a directory",),
        hints=("PERSTACK_DATA_DIR",),
    ),
    "hidden folder is a file": Bad(
        label="workspace",
        code=2,
        files={"perstack": b""},
        says=("{workspace}/perstack, where the workspace's id is kept", "Not a directory"),
        hints=("Move it away",),
    ),
    "setting no number": Bad(
        label="settings",
        code=2,
        env={"PERSTACK_SERVER_IDLE": "soon"},
        says=("PERSTACK_SERVER_IDLE is 'soon'",),
        hints=("900",),
    ),
    "endpoints nonsense": Bad(
        label="settings",
        code=2,
        env={"PERSTACK_ALLOW_ENDPOINTS": "localhost"},
        says=("'localhost' in PERSTACK_ALLOW_ENDPOINTS",),
        hints=("host:port",),
    ),
    "server away": Bad(
        label="server",
        code=3,
        args=("--address", "127.0.0.1:1"),
        says=("cannot reach Temporal at 127.0.0.1:1: Connection refused",),
        hints=("--address",),
    ),
    "server of the environment away": Bad(
        label="server",
        code=3,
        env={"TEMPORAL_ADDRESS": "127.0.0.1:1"},
        says=("cannot reach Temporal at 127.0.0.1:1",),
        hints=("TEMPORAL_ADDRESS",),
    ),
    "profile unreadable": Bad(
        label="server",
        code=3,
        files={"profile.toml": b"[profile"},
        env={"TEMPORAL_CONFIG_FILE": "{workspace}/profile.toml"},
        says=("the Temporal profile cannot be read",),
        hints=("TEMPORAL_CONFIG_FILE",),
    ),
    "no server program": Bad(
        label="temporal",
        code=3,
        env={"PERSTACK_TEMPORAL_CLI": "", "PATH": "/nowhere"},
        says=("no `temporal` program found", "PERSTACK_NO_DOWNLOAD=1"),
        hints=("brew install temporal", "TEMPORAL_ADDRESS=host:7233"),
    ),
    "server program no program": Bad(
        label="temporal",
        code=3,
        env={"PERSTACK_TEMPORAL_CLI": "/dev/null"},
        says=("PERSTACK_TEMPORAL_CLI names /dev/null",),
        hints=("correct the variable",),
    ),
    "server program too old": Bad(
        label="temporal",
        code=3,
        files={"temporal": OLD},
        env={"PERSTACK_TEMPORAL_CLI": "{workspace}/temporal"},
        says=("{workspace}/temporal is version 1.20.3; 1.29 or newer",),
        hints=("update",),
    ),
    "server program of another kind": Bad(
        label="temporal",
        code=3,
        files={"temporary": OTHER},
        env={"PERSTACK_TEMPORAL_CLI": "{workspace}/temporary"},
        says=("is not Temporal's program: a program of another kind",),
        hints=("PERSTACK_TEMPORAL_CLI", "brew install"),
    ),
    "server program fails": Bad(
        label="temporal",
        code=3,
        files={"temporal": STUCK},
        env={"PERSTACK_TEMPORAL_CLI": "{workspace}/temporal"},
        says=("ended with 7",),
        hints=("PERSTACK_TEMPORAL_CLI",),
    ),
    "definition elsewhere": Bad(
        label="definition",
        code=2,
        args=("--config", "nope.toml"),
        says=('"nope.toml" is not found',),
        hints=("--config",),
    ),
    "broken TOML": Bad(
        label="definition", code=2, toml=SOLO + "model = oops\n", says=("perstack.toml:4:",), hints=("Correct",)
    ),
    "broken rule": Bad(
        label="definition",
        code=2,
        toml=SOLO.replace("instruction", "instructoin"),
        says=("Validation failed",),
        hints=("Correct",),
    ),
    "missing delegate": Bad(
        label="definition",
        code=2,
        toml=SOLO + 'delegates = ["@solo/one"]\n',
        says=("Delegate @solo/one not found", "perstack.toml:4"),
        hints=('Define [experts."@solo/one"]',),
    ),
    "newer definition": Bad(
        label="definition",
        code=2,
        toml=SOLO + 'minRuntimeVersion = "v99.0"\n',
        says=("needs Perstack v99.0",),
        hints=("Upgrade Perstack",),
    ),
    "private endpoint": Bad(
        label="definition",
        code=2,
        toml=REMOTE.format(url="https://10.0.0.1/mcp"),
        says=("10.0.0.1", "perstack.toml:6"),
        hints=("Correct",),
    ),
    "env file no text": Bad(
        label="env files", code=2, files={".env": b"A=\xff\n"}, says=("{workspace}/.env",), hints=("--env-path",)
    ),
    "no API key": Bad(
        label="credentials",
        code=4,
        env={"ANTHROPIC_API_KEY": ""},
        says=("ANTHROPIC_API_KEY is not set",),
        hints=("ANTHROPIC_API_KEY=…",),
    ),
    "unsendable API key": Bad(
        label="credentials",
        code=4,
        env={"ANTHROPIC_API_KEY": "sk-planted\n0123456789"},
        says=("ANTHROPIC_API_KEY holds characters",),
        hints=("line breaks",),
    ),
    "another provider": Bad(
        label="credentials",
        code=4,
        args=("--provider", "openai"),
        says=("OPENAI_API_KEY is not set",),
        hints=("OPENAI_API_KEY=…",),
    ),
    "half a resource": Bad(
        label="credentials",
        code=4,
        args=("--provider", "azure-openai"),
        env={"AZURE_API_KEY": "azure-planted-0123456789"},
        says=("AZURE_RESOURCE_NAME is not set",),
        hints=("resourceName",),
    ),
    "address no URL": Bad(
        label="provider",
        code=4,
        env={"ANTHROPIC_BASE_URL": "ftp://me:planted-0123456789@host"},
        says=("ANTHROPIC_BASE_URL in the environment is not an http",),
        hints=("ANTHROPIC_BASE_URL",),
    ),
    "proxy no URL": Bad(
        label="provider",
        code=4,
        env={"PERSTACK_PROXY_URL": "me:planted-0123456789@host"},
        says=("PERSTACK_PROXY_URL is not the URL",),
        hints=("unset PERSTACK_PROXY_URL",),
    ),
    "variable of a skill": Bad(
        label="skills",
        code=2,
        toml=SOLO + skill("needy", "crash.py", more='requiredEnv = ["TOKEN"]'),
        says=("needy (solo) requires the environment variable TOKEN",),
        hints=("TOKEN=…",),
    ),
    "skill no program": Bad(
        label="skills",
        code=2,
        toml=SOLO + '[experts.solo.skills.gone]\ntype = "mcpStdioSkill"\ncommand = "nowhere-at-all"\nargs = ["x"]\n',
        says=("There is no program 'nowhere-at-all'",),
        hints=("Install nowhere-at-all",),
    ),
    "skill crashes": Bad(
        label="skills",
        code=2,
        files={"crash.py": CRASH.encode()},
        toml=SOLO + skill("crash", "crash.py"),
        says=("ended with exit code 3", "no licence"),
        hints=("command",),
    ),
    "endpoint away": Bad(
        label="skills",
        code=2,
        env={"PERSTACK_ALLOW_ENDPOINTS": "127.0.0.1:1"},
        toml=REMOTE.format(url="http://127.0.0.1:1/mcp"),
        says=("far (solo)",),
        hints=("endpoint",),
    ),
}


@pytest.mark.requirement("interface.exit-codes")
@pytest.mark.parametrize("name", BAD)
async def test_what_is_missing_is_told_with_a_remedy_while_all_else_is_checked(
    name: str, cli: Cli, fresh: dict[str, str]
) -> None:
    bad = BAD[name]

    def filled(text: str) -> str:
        return text.replace("{workspace}", str(cli.workspace))

    cli.write("perstack.toml", bad.toml)
    for path, content in bad.files.items():
        cli.write(path, "").write_bytes(content)
        (cli.workspace / path).chmod(0o755)
    env = {**fresh, **{key: filled(value) for key, value in bad.env.items()}}
    result = await cli.run("doctor", *bad.args, env=env)
    assert result.code == bad.code, result.stdout
    found = checks(result)
    [failure] = [line for line in found if line.status == "fail"]
    assert failure.label == bad.label
    for fragment in bad.says:
        assert filled(fragment) in "\n".join((failure.text, *failure.more))
    for fragment in bad.hints:
        assert fragment in failure.hint
    everything = {"perstack", "data folder", "workspace", "server", "definition", "provider", "skills"}
    assert everything - {line.label for line in found} <= {bad.label} | ({"server"} if bad.code == 3 else set())
    assert result.stdout.splitlines()[-1].startswith("1 check failed, ")
    assert "planted" not in result.stdout
    assert not DataFolder(Path(env["PERSTACK_DATA_DIR"])).record.exists()
    assert processes(cli) == []


@pytest.mark.parametrize("folder", ["/proc", "/sys"])
async def test_a_workspace_that_cannot_be_written_is_told(folder: str, cli: Cli, fresh: dict[str, str]) -> None:
    config = cli.write("perstack.toml", SOLO)
    result = await replace(cli, workspace=Path(folder)).run("doctor", "--config", str(config), env=fresh)
    assert result.code == 2
    [line] = of(result, "workspace")
    assert (line.status, f"The workspace {folder} cannot be written" in line.text) == ("fail", True)


async def test_a_workspace_that_is_gone_is_told_and_the_rest_is_checked(cli: Cli, fresh: dict[str, str]) -> None:
    result = await cli.shell("mkdir gone && cd gone && rmdir ../gone && perstack doctor", env=fresh)
    assert result.code == 2
    [line] = of(result, "workspace")
    assert (line.status, line.text) == ("fail", "The current folder does not exist any more.")
    assert of(result, "credentials")[0].status == "ok"


async def test_of_several_failures_the_first_decides_the_code(cli: Cli, fresh: dict[str, str]) -> None:
    cli.write("perstack.toml", SOLO + skill("gone", "nowhere.py"))
    away = await cli.run("doctor", "--address", "127.0.0.1:1", env={**fresh, "ANTHROPIC_API_KEY": ""})
    assert away.code == 3
    assert [line.label for line in checks(away) if line.status == "fail"] == ["server", "credentials", "skills"]
    assert away.stdout.splitlines()[-1].startswith("3 checks failed, ")
    poor = await cli.run("doctor", env={**fresh, "ANTHROPIC_API_KEY": ""})
    assert poor.code == 4
    assert [line.label for line in checks(poor) if line.status == "fail"] == ["credentials", "skills"]


async def test_a_misspelt_provider_is_refused_as_by_every_command(cli: Cli, fresh: dict[str, str]) -> None:
    result = await cli.run("doctor", "--provider", "antropic", env=fresh)
    assert (result.code, result.stdout) == (2, "")
    assert 'did you mean "anthropic"?' in result.stderr


async def test_a_server_that_is_named_is_looked_at_and_its_namespace_too(
    cli: Cli, fresh: dict[str, str], server_data: DataFolder
) -> None:
    cli.write("perstack.toml", SOLO)
    await cli.run("log", "--job", "starts-the-server")
    address = json.loads(server_data.record.read_text())["address"]
    there, nope = await asyncio.gather(
        cli.run("doctor", "--address", address, env={**fresh, "PERSTACK_TEMPORAL_CLI": "/dev/null"}),
        cli.run("doctor", env={**fresh, "TEMPORAL_ADDRESS": address, "TEMPORAL_NAMESPACE": "nope"}),
    )
    assert there.code == 0, there.stdout
    assert re.match(rf"{address} \(--address\), version 1\.\d+.*, namespace default$", of(there, "server")[0].text)
    assert of(there, "temporal") == []
    assert nope.code == 3
    assert "nope" in of(nope, "server")[0].text
    assert "TEMPORAL_NAMESPACE" in of(nope, "server")[0].hint


async def test_a_server_that_never_answers_is_given_up(cli: Cli, fresh: dict[str, str]) -> None:
    cli.write("perstack.toml", SOLO)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        result = await cli.run("doctor", "--address", f"127.0.0.1:{port}", env=fresh)
    assert result.code == 3
    assert "no answer within 5 s" in of(result, "server")[0].text


async def test_no_secret_is_shown_whatever_a_skill_prints(cli: Cli, fresh: dict[str, str]) -> None:
    leak = "import os, sys; print(dict(os.environ)); sys.stderr.write(str(dict(os.environ))); sys.exit(1)"
    cli.write("leak.py", leak)
    cli.write("server.py", SERVER.replace('MCPServer("tester")', "MCPServer(f\"tester {os.environ['TOKEN']}\")"))
    required = 'requiredEnv = ["TOKEN", "SHELL_TOKEN"]'
    cli.write(
        "perstack.toml", SOLO + skill("leak", "leak.py", more=required) + skill("named", "server.py", more=required)
    )
    secrets = {
        "TOKEN": TOKEN,
        "ANTHROPIC_API_KEY": "sk-ant-file-9876543210",
        "OPENAI_API_KEY": "sk-oai-file-9876543210",
        "PASSWORD": "pass word of the file",
        "ANTHROPIC_BASE_URL": "http://me:pw-of-url-42@127.0.0.1:9/path-token-77?key=query-token-88",
        "PERSTACK_PROXY_URL": "http://me:pw-of-proxy-43@127.0.0.1:9",
    }
    cli.write(".env", "".join(f"{name}={value!r}\n" for name, value in secrets.items()))
    host = {
        **fresh,
        "SHELL_TOKEN": "shell-token-1234567",
        "TEMPORAL_API_KEY": "tmprl-key-1234567",
        "GOOGLE_GENERATIVE_AI_API_KEY": "google-key-1234567",
    }
    result = await cli.run("doctor", env=host)
    assert result.code == 2, result.stdout
    assert "***" in result.stdout
    texts = [line.text for line in of(result, "skills")]
    assert any("named (solo): 2 tools" in text and "tester ***" in text for text in texts), texts
    hidden = {
        *(value for name, value in secrets.items() if not name.endswith("_URL")),
        *(value for name, value in host.items() if name.endswith(("KEY", "TOKEN"))),
        *("pw-of-url-42", "path-token-77", "query-token-88", "pw-of-proxy-43"),
    }
    for secret in hidden:
        for piece in (secret, secret[:8], secret[-8:]):
            assert piece not in result.stdout + result.stderr, piece
    [credential] = of(result, "credentials")
    assert credential.text == "ANTHROPIC_API_KEY is set in the environment"
    assert of(result, "others")[0].text.endswith("openai, google")
    addresses = [line.text for line in of(result, "provider")]
    assert "http://127.0.0.1:9/…" in addresses[0]
    assert addresses[1] == "calls go through http://127.0.0.1:9 (PERSTACK_PROXY_URL)"


async def test_what_a_terminal_would_obey_is_not_printed(cli: Cli, fresh: dict[str, str]) -> None:
    cli.write(
        "crash.py", 'import sys; sys.stderr.write("\\x1b]0;owned\\x07\\x1b[2J\\u202eabc\\rok   fake\\n"); sys.exit(1)'
    )
    cli.write("perstack.toml", SOLO + skill("crash", "crash.py"))
    result = await cli.run("doctor", env=fresh)
    assert result.code == 2
    assert "owned" in result.stdout
    assert set("\x1b\x07\r\u202e").isdisjoint(result.stdout)
    assert [line.status for line in of(result, "skills")] == ["fail"]


async def test_a_credential_of_an_env_file_is_told_by_the_file_that_counts(cli: Cli, fresh: dict[str, str]) -> None:
    cli.write("perstack.toml", SOLO)
    cli.write("one.env", "OTHER=1\n")
    cli.write("two.env", f"ANTHROPIC_API_KEY={KEY}\n")
    cli.write("three.env", f"ANTHROPIC_API_KEY={KEY}3\n")
    paths = [part for name in ("one", "two", "three", "four") for part in ("--env-path", f"{name}.env")]
    result = await cli.run("doctor", *paths, env={**fresh, "ANTHROPIC_API_KEY": ""})
    assert result.code == 0, result.stdout
    assert of(result, "credentials")[0].text == f"ANTHROPIC_API_KEY is set in {cli.workspace}/two.env"
    warning, told = of(result, "env files")
    assert (warning.status, f"{cli.workspace}/four.env: there is no such file" in warning.text) == ("warn", True)
    assert f"{cli.workspace}/three.env (1 variable)" in told.text


async def test_a_skill_of_two_experts_is_started_once_and_with_no_skills_never(cli: Cli, fresh: dict[str, str]) -> None:
    cli.write("server.py", SERVER)
    both = SOLO + skill("tester", "server.py") + SOLO.replace("solo", "other")
    cli.write("perstack.toml", both + skill("tester", "server.py", expert="other"))
    never = await cli.run("doctor", "--no-skills", env=fresh)
    assert never.code == 0, never.stdout
    assert [(line.status, line.text) for line in of(never, "skills")] == [
        ("–", "tester (solo, other): not started (--no-skills)")
    ]
    assert not (cli.workspace / "starts").exists()
    once = await cli.run("doctor", env=fresh)
    assert once.code == 0, once.stdout
    [line] = of(once, "skills")
    assert line.text.startswith("tester (solo, other): 2 tools")
    assert (cli.workspace / "starts").read_text() == "start\n"


async def test_what_is_odd_about_a_definition_is_a_warning(cli: Cli, fresh: dict[str, str]) -> None:
    cli.write("server.py", SERVER)
    more = 'pick = ["exec", "nope"]\nallowedDomains = ["example.com"]'
    cli.write("perstack.toml", 'flavour = "x"\n' + SOLO + skill("tester", "server.py", more=more))
    result = await cli.run("doctor", env=fresh)
    assert result.code == 0, result.stdout
    odd = [f"{line.label}: {line.text}" for line in checks(result) if line.status == "warn"]
    assert odd[1:] == [
        "definition: solo: skill tester: allowedDomains is declared, not enforced here; "
        "the container's proxy enforces it",
        "skills: solo: skill tester has no tool nope, which `pick` names",
        "tools: solo: tool exec of skill tester is offered as tester_exec",
    ]
    assert "perstack.toml:1: unknown key `flavour` is ignored" in odd[0]
    assert "4 warnings" in result.stdout.splitlines()[-1]


async def test_drift_from_the_lock_is_a_warning_until_it_is_installed_again(cli: Cli, fresh: dict[str, str]) -> None:
    cli.write("perstack.toml", SOLO)
    installed = await cli.run("install", env=fresh)
    assert installed.code == 0, installed.stderr
    current = await cli.run("doctor", env=fresh)
    assert [(line.status, line.text) for line in of(current, "lock")] == [
        ("ok", f"{cli.workspace}/perstack.lock is up to date")
    ]
    cli.write("perstack.toml", SOLO.replace("You are solo.", "You are another."))
    drifted = await cli.run("doctor", env=fresh)
    assert drifted.code == 0
    [line] = of(drifted, "lock")
    assert (line.status, "solo has changed" in line.text) == ("warn", True)
    assert "perstack install" in line.hint
    cli.write("perstack.lock", "version = 7")
    broken = await cli.run("doctor", env=fresh)
    assert broken.code == 0
    assert of(broken, "lock")[0].status == "warn"


async def test_a_remote_skill_at_an_allowed_endpoint_is_asked_and_the_endpoint_is_shown(
    cli: Cli, fresh: dict[str, str]
) -> None:
    async with modern_over_http({"PATH": cli.env["PATH"]}) as server:
        cli.write("perstack.toml", REMOTE.format(url=f"http://127.0.0.1:{server.port}/mcp"))
        allowed = {**fresh, "PERSTACK_ALLOW_ENDPOINTS": f"127.0.0.1:{server.port}"}
        result = await cli.run("doctor", env=allowed)
        refused = await cli.run("doctor", env=fresh)
    assert result.code == 0, result.stdout
    assert f"127.0.0.1:{server.port}" in of(result, "settings")[0].text
    [line] = of(result, "skills")
    assert re.match(r"far \(solo\): 3 tools, \d+ ms \(handshake \d+, discovery \d+\), modern", line.text)
    assert refused.code == 2
    assert of(refused, "definition")[0].status == "fail"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted_it_leaves_and_ends_what_it_started(
    number: signal.Signals, cli: Cli, fresh: dict[str, str], tmp_path: Path
) -> None:
    script = "import os, subprocess\nsubprocess.Popen(['sleep', '600'])\nopen('fifo', 'w').write('up')\nos.read(0, 1)\n"
    cli.write("stuck.py", script + "import time\ntime.sleep(600)\n")
    started = Signal(cli.workspace / "fifo")
    try:
        cli.write("perstack.toml", SOLO + skill("stuck", "stuck.py"))
        async with cli.running("doctor", env=fresh) as running:
            assert await started.wait() == "up"
            running.process.send_signal(number)
            result = await cli.finished(running, seconds=WAIT_SECONDS)
    finally:
        started.close()
    assert result.code == 130
    assert "Traceback" not in result.stderr
    assert processes(cli) == []


async def test_a_skill_that_forks_leaves_nothing_behind(cli: Cli, fresh: dict[str, str]) -> None:
    fork = "subprocess.Popen(['sleep', '600'], start_new_session=True)\nserver.run("
    cli.write("server.py", SERVER.replace("server.run(", fork))
    cli.write("perstack.toml", SOLO + skill("tester", "server.py"))
    result = await cli.run("doctor", env=fresh)
    assert result.code == 0, result.stdout
    assert of(result, "skills")[0].status == "ok"
    assert processes(cli) == []


async def test_a_reader_that_goes_away_early_is_no_error(cli: Cli, fresh: dict[str, str]) -> None:
    cli.write("perstack.toml", SOLO)
    result = await cli.shell('perstack doctor | head -1; exit "${PIPESTATUS[0]}"', env=fresh)
    assert result.code == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.startswith("ok   perstack ")


@pytest.mark.parametrize(
    ("free", "status"), [(LOW_BYTES, "ok"), (LOW_BYTES - 1, "warn"), (LEAST_BYTES, "warn"), (LEAST_BYTES - 1, "fail")]
)
def test_a_disk_that_fills_up_is_first_a_warning_then_a_failure(free: int, status: str) -> None:
    check = space_check("data folder", "/data", free)
    assert check.status == status
    assert (check.hint is None) == (status == "ok")
    assert check.code == (2 if status == "fail" else 0)
