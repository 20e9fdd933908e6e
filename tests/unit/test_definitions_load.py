"""Finding, reading and checking perstack.toml."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from perstack.core.failures import DefinitionError, PerstackError, UsageError
from perstack.definitions import load
from perstack.definitions.document import dotted, key_lines
from perstack.definitions.hosts import domain_problem, is_public_address
from perstack.definitions.load import fetch_remote, load_config, load_text

MINIMAL = '[experts.solo]\ninstruction = "Answer."\n'
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(text: str | bytes, name: str = "perstack.toml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return _write


def refusal(text: str) -> DefinitionError:
    with pytest.raises(DefinitionError) as caught:
        load_text(text, source="perstack.toml")
    return caught.value


def problem(text: str) -> str:
    """The one issue of a definition, without the header line."""
    header, *lines = refusal(text).message.splitlines()
    assert header == "perstack.toml: Validation failed:"
    assert len(lines) == 1, lines
    return lines[0].removeprefix("  - ")


def expert(lines: str = "", key: str = "solo") -> str:
    return f'[experts."{key}"]\ninstruction = "Answer."\n{lines}\n'


def skill(lines: str, name: str = "x") -> str:
    return f'{expert()}\n[experts.solo.skills."{name}"]\n{lines}\n'


def nowhere(cwd: Path) -> None:
    """Stands for a file system without any perstack.toml."""


# Finding a file


def test_the_nearest_file_above_the_working_folder_is_used(tmp_path: Path, write: Write) -> None:
    write(expert(key="outer"))
    near = write(expert(key="inner"), "a/perstack.toml")
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    loaded = load_config(None, cwd=deep)
    assert loaded.source == str(near)
    assert loaded.directory == near.parent
    assert loaded.own_experts == ("inner",)


def test_a_folder_called_perstack_toml_is_not_a_configuration(tmp_path: Path, write: Write) -> None:
    outer = write(MINIMAL)
    inside = tmp_path / "a"
    (inside / "perstack.toml").mkdir(parents=True)
    assert load_config(None, cwd=inside).source == str(outer)


def test_nothing_found_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "find_config", nowhere)
    with pytest.raises(UsageError) as caught:
        load_config(None, cwd=tmp_path, expert_key="solo")
    assert caught.value.message == "perstack.toml not found. Create one or specify --config path."
    assert "create-expert" in (caught.value.hint or "")


def test_a_config_path_is_relative_to_the_working_folder(tmp_path: Path, write: Write) -> None:
    path = write(MINIMAL, "teams/one.toml")
    loaded = load_config("teams/one.toml", cwd=tmp_path)
    assert (loaded.source, loaded.directory) == (str(path), path.parent)


def test_a_missing_config_path_is_named_as_given(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_config("nowhere/x.toml", cwd=tmp_path)
    assert caught.value.message == 'Given config path "nowhere/x.toml" is not found'


def test_a_directory_as_config_names_the_file_inside(tmp_path: Path, write: Write) -> None:
    write(MINIMAL, "team/perstack.toml")
    with pytest.raises(UsageError) as caught:
        load_config("team", cwd=tmp_path)
    assert caught.value.message == 'Given config path "team" is a directory'
    assert caught.value.hint == "Give the file: --config team/perstack.toml"


@pytest.mark.parametrize("config", ["a\0b", "x" * 5000, "perstack.toml/inside"])
def test_an_impossible_config_path_is_a_usage_error(tmp_path: Path, write: Write, config: str) -> None:
    write(MINIMAL)
    with pytest.raises(UsageError):
        load_config(config, cwd=tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_says_why(tmp_path: Path, write: Write) -> None:
    write(MINIMAL).chmod(0)
    with pytest.raises(UsageError, match="cannot be read: Permission denied"):
        load_config(None, cwd=tmp_path)


def test_a_file_that_fails_while_reading_says_why(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(MINIMAL)

    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(UsageError, match="cannot be read: Permission denied"):
        load_config(None, cwd=tmp_path)


def test_a_huge_file_is_refused(tmp_path: Path, write: Write) -> None:
    write(b"#" * (load.MAX_CONFIG_BYTES + 1))
    with pytest.raises(UsageError, match="larger than 4 MiB"):
        load_config(None, cwd=tmp_path)


# Remote files

REMOTE = "https://raw.githubusercontent.com/o/r/main/perstack.toml"


def answering(status: int, text: str = "", **headers: str) -> httpx2.MockTransport:
    return httpx2.MockTransport(lambda request: httpx2.Response(status, text=text, headers=headers))


def test_a_remote_file_is_fetched() -> None:
    assert fetch_remote(REMOTE, transport=answering(200, MINIMAL)).decode() == MINIMAL


def test_a_remote_configuration_has_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(url: str) -> bytes:
        return MINIMAL.encode()

    monkeypatch.setattr(load, "fetch_remote", fetch)
    loaded = load_config(REMOTE, cwd=tmp_path)
    assert (loaded.source, loaded.directory) == (REMOTE, None)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://raw.githubusercontent.com/x", "Remote config requires HTTPS"),
        ("https://example.com/perstack.toml", "Remote config only allowed from: raw.githubusercontent.com"),
        ("https://raw.githubusercontent.com@evil.test/x", "Remote config only allowed from: raw.githubusercontent.com"),
        ("https://raw.githubusercontent.com.evil.test/x", "Remote config only allowed from: raw.githubusercontent.com"),
        ("https://raw.githubusercontent.com:8443/x", "Remote config only allowed from: raw.githubusercontent.com"),
        ("https://me:pw@raw.githubusercontent.com/x", "Remote config only allowed from: raw.githubusercontent.com"),
        ("https://[bad/x", "Invalid remote config URL: https://[bad/x"),
        ("https://", "Invalid remote config URL: https://"),
        ("HTTPS://raw.githubusercontent.com\\@evil.test/", None),
        ("https://raw.githubusercontent.com/a b", None),
    ],
)
def test_a_remote_url_is_checked_before_it_is_fetched(tmp_path: Path, url: str, message: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(url, cwd=tmp_path)
    assert caught.value.message == (message or f"Invalid remote config URL: {url}")


@pytest.mark.parametrize(
    ("transport", "reason"),
    [
        (answering(404), "404 Not Found"),
        (answering(302, location="https://evil.test/"), "redirects are refused (302 Found)"),
        (answering(204), "204 No Content"),
        (answering(200, "#" * (load.MAX_CONFIG_BYTES + 1)), "it is larger than 4 MiB"),
    ],
)
def test_a_remote_answer_other_than_a_file_is_refused(transport: httpx2.MockTransport, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        fetch_remote(REMOTE, transport=transport)
    assert caught.value.message == f"Failed to fetch remote config: {reason}"


def test_a_network_failure_is_named() -> None:
    def fail(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("no route", request=request)

    with pytest.raises(UsageError, match="Failed to fetch remote config: no route"):
        fetch_remote(REMOTE, transport=httpx2.MockTransport(fail))


# Text that is no TOML


def test_a_syntax_error_names_file_and_line(tmp_path: Path, write: Write) -> None:
    path = write('model = "m"\nprovider = [\n}')
    with pytest.raises(DefinitionError) as caught:
        load_config(None, cwd=tmp_path)
    assert caught.value.message.startswith(f"{path}:3: ")
    assert caught.value.details == {"file": str(path), "line": 3}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('a = "open', 1),
        ("a = 1\n\na = 2\n", 3),
        ("a = 1\nb = " + "[" * 3000, None),
        ("a = 1\nb = " + "9" * 5000, None),
        ("a = 2026-99-99", None),
    ],
)
def test_every_kind_of_broken_toml_is_a_definition_error(text: str, line: int | None) -> None:
    error = refusal(text)
    assert error.code == "definition.syntax"
    if line:
        assert error.message.startswith(f"perstack.toml:{line}: ")


def test_a_file_in_another_encoding_names_the_line(tmp_path: Path, write: Write) -> None:
    path = write(b'[experts.a]\ninstruction = "ol\xe9"\n')
    with pytest.raises(DefinitionError) as caught:
        load_config(None, cwd=tmp_path)
    assert caught.value.message == f"{path}:2: the file is not UTF-8 text (byte 0xe9)"


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path, write: Write) -> None:
    write(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())
    assert load_config(None, cwd=tmp_path).own_experts == ("solo",)


def test_an_empty_file_is_valid_and_has_no_experts_of_its_own(tmp_path: Path, write: Write) -> None:
    write("")
    assert load_config(None, cwd=tmp_path).own_experts == ()


# Shape


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[experts.a]\nversion = '1.0.0'", "experts.a.instruction: is required (perstack.toml:1)"),
        ("[experts.a]\ninstruction = 3", "experts.a.instruction: must be a string (perstack.toml:2)"),
        ("[experts.a]\ninstruction = ''", "experts.a.instruction: must not be empty (perstack.toml:2)"),
        ("experts = 1", "experts: must be a table (perstack.toml:1)"),
        ("experts = { a = 1 }", "experts.a: must be a table (perstack.toml:1)"),
        ("maxSteps = 0", "maxSteps: must be at least 1 (perstack.toml:1)"),
        ("maxSteps = true", "maxSteps: must be a whole number (perstack.toml:1)"),
        ("maxSteps = '9'", "maxSteps: must be a whole number (perstack.toml:1)"),
        ("maxRetries = -1", "maxRetries: must be at least 0 (perstack.toml:1)"),
        ("timeout = 0", "timeout: must be at least 1 (perstack.toml:1)"),
        ("model = ''", "model: must not be empty (perstack.toml:1)"),
        ("envPath = '.env'", "envPath: must be an array (perstack.toml:1)"),
        ("envPath = [\n  '.env',\n  7,\n]", "envPath[1]: must be a string (perstack.toml:3)"),
        ("[provider]", "provider.providerName: is required (perstack.toml:1)"),
        (
            "defaultModelTier = 'top'",
            "defaultModelTier: must be one of 'low', 'middle' or 'high', not 'top' (perstack.toml:1)",
        ),
        (
            "reasoningBudget = 'much'",
            "reasoningBudget: must be one of none, minimal, low, medium, high or a whole number of tokens "
            "(perstack.toml:1)",
        ),
    ],
)
def test_a_wrong_shape_names_key_path_reason_and_line(text: str, expected: str) -> None:
    assert problem(text) == expected


@pytest.mark.parametrize("value", ["'none'", "'minimal'", "'high'", "0", "4096"])
def test_a_reasoning_budget_may_be_a_level_or_a_number(value: str) -> None:
    load_text(f"reasoningBudget = {value}", source="perstack.toml")


@pytest.mark.parametrize("value", ["true", "-1", "1.5", "[1]", "{ a = 1 }"])
def test_any_other_reasoning_budget_is_refused(value: str) -> None:
    assert problem(f"reasoningBudget = {value}").startswith("reasoningBudget: must be one of")


def test_an_unknown_provider_lists_the_nine() -> None:
    found = problem("[provider]\nproviderName = 'opneai'")
    assert found.startswith("provider.providerName: must be one of 'anthropic'")
    assert found.endswith("not 'opneai' (perstack.toml:2)")
    assert "'fireworks'" in found


@pytest.mark.parametrize(("size", "is_valid"), [(20_480, True), (20_481, False)], ids=["longest", "too long"])
def test_an_instruction_has_at_most_20480_characters(size: int, is_valid: bool) -> None:
    text = f"[experts.a]\ninstruction = '{'x' * size}'"
    if is_valid:
        load_text(text, source="perstack.toml")
    else:
        assert "must have at most 20480 characters" in problem(text)


@pytest.mark.parametrize("description", ["", "x" * 2049])
def test_a_description_has_1_to_2048_characters(description: str) -> None:
    assert problem(expert(f"description = '{description}'")).startswith("experts.solo.description: must")


def test_all_problems_of_a_file_are_reported_at_once() -> None:
    error = refusal("maxSteps = 0\nmodl = 'm'\n[experts.a]\ntags = ['Bad']\n")
    assert [issue["path"] for issue in error.details["issues"]] == ["modl", "maxSteps", "experts.a.instruction"]
    assert [issue["line"] for issue in error.details["issues"]] == [2, 1, 3]


# Names, versions, tags


@pytest.mark.parametrize("key", ["A", "@invalid", "a b", "-a", "@a/b/c", "a@", "a@@b", "x" * 512])
def test_a_malformed_expert_key_is_refused(key: str) -> None:
    assert f"Invalid expert key format: {key}" in problem(expert(key=key))


@pytest.mark.parametrize("key", ["my.expert", "@my.team/x", "x" * 256])
def test_a_valid_key_may_still_be_no_expert_name(key: str) -> None:
    assert "is not an expert name" in problem(expert(key=key))


@pytest.mark.parametrize("key", ["a", "a-b_c9", "@a/b", "a@1.0.0", "@a/b@latest", "9a"])
def test_valid_expert_keys_are_accepted(key: str) -> None:
    load_text(expert(key=key), source="perstack.toml")


def test_a_key_with_a_line_break_is_refused() -> None:
    assert refusal(expert(key="a\\n@1.0.0")).code == "definition.invalid"


@pytest.mark.parametrize("version", ["1", "1.0", "v1.0.0", "01.0.0", "1.0.0\\n", ""])
def test_a_version_is_semantic(version: str) -> None:
    assert "is not a semantic version" in problem(expert(f'version = "{version}"'))


@pytest.mark.parametrize("version", ["0.1.0", "1.0.0-beta.1", "1.0.0+build"])
def test_semantic_versions_are_accepted(version: str) -> None:
    load_text(expert(f'version = "{version}"'), source="perstack.toml")


@pytest.mark.parametrize("version", ["1.0", "v1", "v1.0.0", "latest"])
def test_a_runtime_version_is_v_major_minor_or_semantic(version: str) -> None:
    assert "is not a version such as v1.0" in problem(expert(f'minRuntimeVersion = "{version}"'))


def test_a_bad_tag_is_named_with_its_place() -> None:
    found = problem(expert('tags = [\n "fine",\n "Not Fine",\n]'))
    assert found.startswith("experts.solo.tags[1]: 'Not Fine' is not a tag")
    assert found.endswith("(perstack.toml:5)")


# Scopes


@pytest.mark.parametrize(
    ("parent", "delegate"),
    [("a", "@a/x"), ("a", "b"), ("@a/x", "@a/y"), ("@a/x", "b"), ("a", "@org/x@1.0.0"), ("@a/x", "@org/y@latest")],
)
def test_an_allowed_delegation_loads(parent: str, delegate: str) -> None:
    load_text(expert(f'delegates = ["{delegate}"]', parent), source="perstack.toml")


@pytest.mark.parametrize(
    ("parent", "delegate", "rule"),
    [
        ("a", "a", "an expert cannot delegate to itself"),
        ("@a/x", "@a/x", "an expert cannot delegate to itself"),
        ("a", "@b/x", "a coordinator may delegate to its own delegates (`@a/…`) and to other coordinators only"),
        ("@a/x", "a", "a delegate cannot delegate to its own coordinator"),
        ("@a/x", "@b/y", "a delegate may delegate to delegates of its own scope (`@a/…`) and to other coordinators"),
    ],
)
def test_a_forbidden_delegation_names_both_keys_and_the_rule(parent: str, delegate: str, rule: str) -> None:
    error = refusal(expert(f'delegates = ["{delegate}"]', parent))
    assert error.code == "definition.scope"
    assert f'"{parent}" cannot delegate to "{delegate}": {rule}' in error.message
    assert "perstack.toml:3" in error.message


def test_a_malformed_delegate_key_is_refused() -> None:
    assert problem(expert('delegates = ["Nope"]')).startswith(
        "experts.solo.delegates[0]: Invalid expert key format: Nope"
    )


# Unknown keys


@pytest.mark.parametrize(
    ("text", "path", "meant", "line"),
    [
        ("maxStep = 3", "maxStep", "maxSteps", 1),
        ("max_steps = 3", "max_steps", "maxSteps", 1),
        ("modl = 'm'", "modl", "model", 1),
        ("\nexpert = {}", "expert", "experts", 2),
        ("[provider]\nproviderName = 'anthropic'\nsettings = {}", "provider.settings", "setting", 3),
        (
            "[provider]\nproviderName = 'anthropic'\n[provider.setting]\nbaseURL = 'https://x.test'",
            "provider.setting.baseURL",
            "baseUrl",
            4,
        ),
        (expert("delegate = []"), "experts.solo.delegate", "delegates", 3),
        (expert("default-model-tier = 'low'"), "experts.solo.default-model-tier", "defaultModelTier", 3),
        (
            skill("type = 'mcpStdioSkill'\ncommand = 'npx'\nargs = ['x']\nrequired_env = []"),
            "experts.solo.skills.x.required_env",
            "requiredEnv",
            9,
        ),
        (
            skill("type = 'interactiveSkill'\ntools.ask.inputSchema = '{}'\ntools.ask.inputJsonSchema = '{}'"),
            "experts.solo.skills.x.tools.ask.inputSchema",
            "inputJsonSchema",
            7,
        ),
        (
            expert("providerToolOptions.webSearch.maxUse = 1"),
            "experts.solo.providerToolOptions.webSearch.maxUse",
            "maxUses",
            3,
        ),
        (
            expert("providerSkills = [{ type = 'builtin', skillId = 'pdf', skillid = 'x' }]"),
            "experts.solo.providerSkills[0].skillid",
            "skillId",
            3,
        ),
    ],
)
def test_a_misspelt_key_names_the_key_that_was_meant(text: str, path: str, meant: str, line: int) -> None:
    error = refusal(text)
    assert error.code == "definition.unknown_key"
    assert problem(text) == f"{path}: unknown key, did you mean `{meant}`? (perstack.toml:{line})"


def test_a_misspelt_required_key_is_not_also_reported_as_missing() -> None:
    assert problem("[experts.a]\ninstructino = 'x'").startswith("experts.a.instructino: unknown key, did you mean")


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("banana = 1", "perstack.toml:1: unknown key `banana` is ignored"),
        (expert("colour = 'red'"), "perstack.toml:3: unknown key `experts.solo.colour` is ignored"),
        (
            "[provider]\nproviderName = 'anthropic'\nenvPath = ['.env']",
            "perstack.toml:3: `provider.envPath` is ignored: write `envPath` above the first [table] of the file",
        ),
        (
            "[provider]\nproviderName = 'anthropic'\n[provider.setting]\nregion = 'eu'",
            "perstack.toml:4: `provider.setting.region` is not read here and is ignored",
        ),
        (
            skill("type = 'mcpSseSkill'\nendpoint = 'https://mcp.example.com'\ncommand = 'npx'"),
            "perstack.toml:8: `experts.solo.skills.x.command` is not read here and is ignored",
        ),
        (
            skill("type = 'interactiveSkill'\n[experts.solo.skills.x.tools.ask]\nname = 'a'\ninputJsonSchema = '{}'"),
            "perstack.toml:8: unknown key `experts.solo.skills.x.tools.ask.name` is ignored",
        ),
    ],
)
def test_any_other_unknown_key_is_a_warning(text: str, warning: str) -> None:
    assert load_text(text, source="perstack.toml").warnings == (warning,)


@pytest.mark.parametrize(
    ("text", "key", "instead"),
    [
        ("runtime = 'docker'", "runtime", "container image"),
        ("perstackBaseSkillCommand = ['x']", "perstackBaseSkillCommand", "part of Perstack"),
        (
            skill("type = 'mcpStdioSkill'\ncommand = 'npx'\nargs = ['x']\nlazyInit = true"),
            "experts.solo.skills.x.lazyInit",
            "perstack.lock",
        ),
    ],
)
def test_a_retired_key_is_accepted_with_a_warning_that_names_what_replaces_it(
    text: str, key: str, instead: str
) -> None:
    (warning,) = load_text(text, source="perstack.toml").warnings
    assert f"`{key}` has no effect any more" in warning
    assert instead in warning


# Provider settings

SETTING = "[provider]\nproviderName = '{}'\n[provider.setting]\n{}\n"


@pytest.mark.parametrize("provider", ["anthropic", "openai", "azure-openai", "google-vertex", "fireworks"])
@pytest.mark.parametrize("url", ["http://x.test", "x.test", "https://", "ftp://x.test"])
def test_a_base_url_must_use_https(provider: str, url: str) -> None:
    found = problem(SETTING.format(provider, f"baseUrl = '{url}'"))
    assert found == "provider.setting.baseUrl: URL must use HTTPS (perstack.toml:4)"


def test_ollama_may_use_any_base_url() -> None:
    load_text(SETTING.format("ollama", "baseUrl = 'http://localhost:11434'"), source="perstack.toml")


def test_the_base_url_of_a_provider_without_one_is_not_checked() -> None:
    loaded = load_text(SETTING.format("amazon-bedrock", "baseUrl = 'http://x.test'"), source="perstack.toml")
    assert "is not read here" in loaded.warnings[0]


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "x-api-key",
        "api-key",
        "API_KEY",
        "Cookie",
        "X-Auth-Token",
        "client-secret",
        "Proxy-Authorization",
    ],
)
def test_a_header_that_looks_like_a_credential_is_refused_with_the_variable_to_use(name: str) -> None:
    error = refusal(SETTING.format("anthropic", f'headers = {{ "{name}" = "abc" }}'))
    assert error.code == "definition.credential"
    assert name in error.message
    assert "abc" not in error.message
    assert error.hint == "Set ANTHROPIC_API_KEY in the environment or in an env file."


def test_a_bearer_value_is_refused_under_any_header_name() -> None:
    error = refusal(SETTING.format("openai", 'headers = { "x-gateway" = "Bearer abc" }'))
    assert error.hint == "Set OPENAI_API_KEY in the environment or in an env file."


def test_other_headers_are_kept() -> None:
    loaded = load_text(SETTING.format("anthropic", 'headers = { "x-team" = "blue" }'), source="perstack.toml")
    assert loaded.toml.provider
    assert loaded.toml.provider.setting
    assert loaded.toml.provider.setting.headers == {"x-team": "blue"}


@pytest.mark.parametrize("url", ["https://me:pw@x.test", "https://key@x.test"])
def test_a_base_url_with_a_login_is_refused(url: str) -> None:
    assert refusal(SETTING.format("anthropic", f"baseUrl = '{url}'")).code == "definition.credential"


@pytest.mark.parametrize("key", ["apiKey", "secretAccessKey", "sessionToken"])
def test_a_credential_as_a_setting_is_refused(key: str) -> None:
    error = refusal(SETTING.format("anthropic", f"{key} = 'sk-123'"))
    assert error.code == "definition.credential"
    assert "sk-123" not in error.message


def test_the_api_base_url_must_use_https() -> None:
    assert "perstackApiBaseUrl must use HTTPS" in problem("perstackApiBaseUrl = 'http://x.test'")


# Skills


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("command = 'npx'", "Skill x has no packageName or args. Please provide one of them."),
        (
            "command = 'npx'\npackageName = 'p'\nargs = ['q']",
            "Skill x has both packageName and args. Please provide only one of them.",
        ),
        ("packageName = 'p'", "Skill x has no command"),
        ("command = ' '\npackageName = 'p'", "Skill x has no command"),
        ("command = 'npx'\nargs = ['p']\nrequiredEnv = ['ld_preload']", "ld_preload cannot be required"),
        ("command = 'npx'\nargs = ['p']\nrequiredEnv = ['A B']", "'A B' is not the name of an environment variable"),
    ],
)
def test_a_stdio_skill_has_a_command_and_either_package_or_arguments(lines: str, message: str) -> None:
    assert message in problem(skill(f"type = 'mcpStdioSkill'\n{lines}"))


@pytest.mark.parametrize("lines", ["packageName = 'p'", "args = ['p']", "packageName = 'p'\nargs = []"])
@pytest.mark.parametrize("choice", ["", "pick = ['a']\nomit = ['b']"])
def test_a_complete_stdio_skill_loads(lines: str, choice: str) -> None:
    load_text(skill(f"type = 'mcpStdioSkill'\ncommand = 'npx'\n{lines}\n{choice}"), source="perstack.toml")


def test_a_skill_without_a_type_says_so() -> None:
    assert problem(skill("command = 'npx'")) == "experts.solo.skills.x.type: is required (perstack.toml:5)"


def test_an_unknown_skill_type_lists_the_types() -> None:
    found = problem(skill("type = 'mcpHttpSkill'"))
    assert "must be one of 'mcpStdioSkill', 'mcpSseSkill', 'interactiveSkill', not 'mcpHttpSkill'" in found
    assert found.endswith("(perstack.toml:6)")


def test_a_problem_inside_a_skill_has_a_path_without_the_skill_type() -> None:
    found = problem(skill("type = 'mcpStdioSkill'\ncommand = 'npx'\nargs = ['a', 1]"))
    assert found == "experts.solo.skills.x.args[1]: must be a string (perstack.toml:8)"


def test_the_base_skill_needs_no_command() -> None:
    load_text(skill("type = 'mcpStdioSkill'\npick = ['exec']", "@perstack/base"), source="perstack.toml")


def test_the_base_skill_cannot_be_another_kind_of_skill() -> None:
    found = problem(skill("type = 'mcpSseSkill'\nendpoint = 'https://mcp.example.com'", "@perstack/base"))
    assert "always of type mcpStdioSkill" in found


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("packageName = '@perstack/base@0.0.34'", "version of @perstack/base is ignored"),
        ("requiredEnv = ['GH_TOKEN']", "requiredEnv of @perstack/base is ignored"),
        ("allowedDomains = ['example.com']", "allowedDomains of @perstack/base is ignored"),
    ],
)
def test_what_the_base_skill_ignores_is_a_warning(lines: str, words: str) -> None:
    loaded = load_text(skill(f"type = 'mcpStdioSkill'\ncommand = 'npx'\n{lines}", "@perstack/base"), source="f.toml")
    assert len(loaded.warnings) == 1
    assert words in loaded.warnings[0]


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("http://mcp.example.com", "Skill x SSE endpoint must use HTTPS: http://mcp.example.com"),
        ("mcp.example.com", "SSE endpoint must be a public HTTPS URL"),
        ("https://", "SSE endpoint must be a public HTTPS URL"),
        ("https://localhost/x", "Skill x SSE endpoint cannot use private/local IP: https://localhost/x"),
        ("https://10.0.0.1/x", "Skill x SSE endpoint cannot use private/local IP: https://10.0.0.1/x"),
        ("https://[::1]/x", "Skill x SSE endpoint cannot use private/local IP: https://[::1]/x"),
        ("https://me:pw@mcp.example.com", "must not carry a user name or password"),
    ],
)
def test_an_endpoint_is_public_and_https(endpoint: str, message: str) -> None:
    assert message in problem(skill(f"type = 'mcpSseSkill'\nendpoint = '{endpoint}'"))


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST", "localhost.", "a.localhost", "db.internal", "printer.local", "", "0.0.0.0",
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "10.1.2.3", "172.16.0.1", "172.31.255.255",
        "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.1.2.3", "224.0.0.1", "255.255.255.255", "::1", "[::1]",
        "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "::ffff:127.0.0.1", "::ffff:a00:1", "::127.0.0.1",
        "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1",
    ],
)  # fmt: skip
def test_a_private_or_local_host_is_recognised_in_every_notation(host: str) -> None:
    assert not is_public_address(host)


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "mcp.example.com.",
        "8.8.8.8",
        "172.32.0.1",
        "2606:4700::1111",
        "fcc.gov",
        "fd.io",
        "10.example.com",
    ],
)
def test_a_public_host_is_accepted(host: str) -> None:
    assert is_public_address(host)


@pytest.mark.parametrize("pattern", ["example.com", "*.example.com", "a-b.example.co", "localhost"])
def test_a_domain_pattern_is_accepted(pattern: str) -> None:
    assert domain_problem(pattern) is None


@pytest.mark.parametrize(
    "pattern",
    ["", "*", "https://x.test", "x.test:443", "a.*.test", "*.*.test", "-a.test", "a..test", "x.test/", "x.test\n"],
)
def test_a_domain_pattern_has_no_scheme_port_path_or_inner_wildcard(pattern: str) -> None:
    assert domain_problem(pattern)


@pytest.mark.parametrize("pattern", ["xn--pple-43d.com", "*.XN--pple-43d.com", "a.xn--p1ai"])
def test_a_punycode_domain_is_refused_as_one(pattern: str) -> None:
    found = problem(skill(f"type = 'mcpSseSkill'\nendpoint = 'https://a.test.com'\nallowedDomains = ['{pattern}']"))
    assert "punycode" in found
    assert found.startswith("experts.solo.skills.x.allowedDomains[0]")


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 5000, "is not JSON"),
        ("[]", "must be a JSON Schema object"),
        ('{"type": "strange"}', "is not a JSON Schema"),
        ('{"type": "string"}', 'must be "object"'),
    ],
)
def test_the_schema_of_an_interactive_tool_is_checked(schema: str, message: str) -> None:
    found = problem(
        skill(f"type = 'interactiveSkill'\n[experts.solo.skills.x.tools.ask]\ninputJsonSchema = '{schema}'")
    )
    assert found.startswith("experts.solo.skills.x.tools.ask.inputJsonSchema: ")
    assert message in found
    assert found.endswith("(perstack.toml:8)")


def test_a_custom_provider_skill_must_hold_json() -> None:
    found = problem(expert("providerSkills = [{ type = 'custom', name = 'n', definition = '{' }]"))
    assert 'Invalid JSON in custom skill definition for "n"' in found


@pytest.mark.parametrize(
    "line",
    [
        "providerTools = 'webSearch'",
        "providerSkills = [{ type = 'builtin', skillId = 'exe' }]",
        "providerSkills = [{ type = 'custom', name = '', definition = '{}' }]",
        "providerToolOptions.webSearch.maxUses = 0",
        "providerToolOptions.fileSearch.vectorStoreIds = 'v'",
    ],
)
def test_provider_tools_are_checked(line: str) -> None:
    assert refusal(expert(line)).code == "definition.invalid"


# Built-in experts


def test_the_built_in_experts_need_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "find_config", nowhere)
    loaded = load_config(None, cwd=tmp_path, expert_key="create-expert")
    assert loaded.directory is None
    assert list(loaded.toml.experts) == [
        "create-expert",
        "@create-expert/plan",
        "@create-expert/write",
        "@create-expert/verify",
    ]


def test_the_built_in_experts_stand_beside_the_users(tmp_path: Path, write: Write) -> None:
    path = write(MINIMAL)
    loaded = load_config(None, cwd=tmp_path)
    assert {"solo", "create-expert", "@create-expert/verify"} <= set(loaded.toml.experts)
    assert loaded.own_experts == ("solo",)
    assert loaded.documents["create-expert"].source != str(path)


def test_the_users_own_definition_of_a_built_in_key_wins(tmp_path: Path, write: Write) -> None:
    write(expert(key="create-expert"))
    loaded = load_config(None, cwd=tmp_path)
    assert loaded.toml.experts["create-expert"].instruction == "Answer."
    assert loaded.own_experts == ("create-expert",)


# Lines and paths


def test_every_kind_of_key_has_its_line() -> None:
    text = '''
# comment = 1
top = 1 # tail
"quoted key" = "a # b"
dotted.'inner'."k\\u0065y" = true

[table . "sub.key"]
list = [ 1, # one
  "two", [ 3,
  4 ] ]
inline = { a = 1, b = { c = "}" }, "d" = [ {
   e = 1 } ] }
multi = """
[not.a.table]
x = 1 \\""" still
"""
literal = \'\'\'
[nor.this]
\'\'\'
after = 2026-01-01 00:00:00

[[items]]
name = "first"
[[items]]
name = "second"
[items.deep]
x = 1
[[items.deeper]]
y = 2
'''
    lines = key_lines(text)
    expected: dict[tuple[str | int, ...], int] = {
        ("top",): 3,
        ("quoted key",): 4,
        ("dotted",): 5,
        ("dotted", "inner", "key"): 5,
        ("table",): 7,
        ("table", "sub.key"): 7,
        ("table", "sub.key", "list", 0): 8,
        ("table", "sub.key", "list", 1): 9,
        ("table", "sub.key", "list", 2, 1): 10,
        ("table", "sub.key", "inline", "b", "c"): 11,
        ("table", "sub.key", "inline", "d", 0, "e"): 12,
        ("table", "sub.key", "after"): 20,
        ("items", 0, "name"): 23,
        ("items", 1): 24,
        ("items", 1, "name"): 25,
        ("items", 1, "deep", "x"): 27,
        ("items", 1, "deeper", 0, "y"): 29,
    }
    assert {path: lines.get(path) for path in expected} == expected
    assert not any("not" in path or "nor" in path for path in lines)


@pytest.mark.parametrize("text", ["[", "a", 'a = "', "a = [", "a = {", "[[x]", "a = " + "[" * 3000, "= 1", "\0"])
def test_finding_lines_never_fails(text: str) -> None:
    key_lines(text)


def test_a_key_path_is_written_as_in_the_file() -> None:
    assert (
        dotted(("experts", "@a/b", "skills", 'say "hi"', "pick", 0)) == 'experts."@a/b".skills."say \\"hi\\"".pick[0]'
    )


def test_a_missing_key_points_to_the_table_header() -> None:
    text = "[experts.a]\ninstruction = 'x'\n\n[experts.a.skills.s]\ntype = 'mcpSseSkill'\n"
    assert problem(text) == "experts.a.skills.s.endpoint: is required (perstack.toml:4)"


@pytest.mark.parametrize("text", ["x = nan", "experts = [[]]", "provider = ['a']", "[provider]\nproviderName = ['a']"])
def test_odd_values_never_raise_anything_else(text: str) -> None:
    with suppress(PerstackError):
        load_text(text, source="perstack.toml")


# What loading costs


def test_loading_imports_neither_the_price_data_nor_an_http_client_nor_temporal(tmp_path: Path, write: Write) -> None:
    write(MINIMAL)
    script = (
        "import sys; from pathlib import Path\n"
        "from perstack.definitions.load import load_config\n"
        "from perstack.definitions.resolve import resolve_job\n"
        "loaded = load_config(None, cwd=Path('.'))\n"
        "resolve_job(loaded, 'solo', host_env={}, cwd=Path('.'), runtime_version='1.0.0')\n"
        "heavy = {'genai_prices', 'httpx2', 'jsonschema', 'temporalio', 'anthropic'} & set(sys.modules)\n"
        "sys.exit(repr(heavy) if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
