"""From a configuration and overrides to what a job starts with."""

import re
from pathlib import Path
from typing import Any

import pytest
from perstack.core.expert import BASE_SKILL, InteractiveSkill, McpStdioSkill, ProviderSkill, ProviderTool, Skill
from perstack.core.failures import DefinitionError, UsageError
from perstack.core.models import tier_model
from perstack.core.run import Limits, RunInput
from perstack.definitions import resolve
from perstack.definitions.checks import check_delegation
from perstack.definitions.dynamic import RunningJob, experts_from_tables, experts_from_text
from perstack.definitions.experts import Definition, ModelSettings
from perstack.definitions.load import LoadedConfig, builtin_config, load_text
from perstack.definitions.resolve import (
    Overrides,
    ResolvedJob,
    parse_provider,
    parse_reasoning_budget,
    resolve_job,
)
from perstack.definitions.schema import MAX_INSTRUCTION

CWD = Path("/workspace")
OURS = "1.2.3"


def expert(key: str, lines: str = "") -> str:
    return f'[experts."{key}"]\ninstruction = "Be {key}."\n{lines}\n'


def loaded(*texts: str) -> LoadedConfig:
    return load_text("\n".join(texts), source="perstack.toml")


def job(*texts: str, key: str = "a", overrides: Overrides | None = None, **options: Any) -> ResolvedJob:
    options = {"host_env": {}, "cwd": CWD, "runtime_version": OURS, **options}
    return resolve_job(loaded(*texts), key, overrides or Overrides(), **options)


def definitions(*texts: str) -> list[Definition]:
    config = loaded(*texts)
    return [Definition(key, table, config.document) for key, table in config.toml.experts.items()]


@pytest.fixture
def everything_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def allow(*_: object, **__: object) -> None:
        return None

    monkeypatch.setattr(resolve, "refuse_unbuilt", allow)


# Finding the expert


def test_a_minimal_job_has_the_defaults() -> None:
    found = job(expert("a"))
    assert found.expert_key == "a"
    assert found.limits == Limits(max_steps=100, max_retries=5, timeout_ms=300_000)
    assert (found.provider, found.provider_setting) == ("anthropic", {})
    assert found.env_paths == ("/workspace/.env", "/workspace/.env.local")
    assert (found.allowed_env, found.warnings) == ((), ())
    only = found.experts["a"]
    assert (only.name, only.version, only.instruction) == ("a", "1.0.0", "Be a.")
    assert (only.model.model, only.model.reasoning_budget) == ("claude-sonnet-5-5", "low")
    assert (only.model.context_window, only.model.max_output_tokens) == (1_000_000, 128_000)


@pytest.mark.parametrize("key", ["Nope", "@invalid", "a b", ""])
def test_a_malformed_key_is_a_usage_error(key: str) -> None:
    with pytest.raises(UsageError) as caught:
        job(expert("a"), key=key)
    assert caught.value.message == f"Invalid expert key format: {key}"


def test_an_unknown_expert_lists_the_keys_and_the_one_that_was_meant() -> None:
    with pytest.raises(UsageError) as caught:
        job(expert("release-notes"), expert("other"), key="release_note")
    assert caught.value.message == 'Expert "release_note" not found in perstack.toml'
    assert caught.value.hint == 'Did you mean "release-notes"? Available experts: release-notes, other.'


def test_an_unknown_expert_without_any_expert_says_none() -> None:
    with pytest.raises(UsageError) as caught:
        job("", key="a")
    assert caught.value.hint == "Available experts: none."


@pytest.mark.parametrize("key", ["@org/name@1.0.0", "name@latest"])
def test_a_registry_key_is_refused_as_not_built(key: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        job(expert("a"), key=key)
    assert caught.value.code == "definition.not_built"
    assert key in caught.value.message


def test_only_reachable_experts_go_into_the_job() -> None:
    found = job(
        expert("a", 'delegates = ["@a/x", "b"]'),
        expert("@a/x", 'delegates = ["@a/y"]'),
        expert("@a/y", 'delegates = ["@a/x"]'),
        expert("b"),
        expert("unused"),
    )
    assert list(found.experts) == ["a", "@a/x", "b", "@a/y"]
    assert found.experts["@a/x"].name == "@a/x"


def test_a_delegate_listed_twice_is_offered_once() -> None:
    assert job(expert("a", 'delegates = ["b", "b"]'), expert("b")).experts["a"].delegates == ("b",)


def test_a_missing_delegate_names_file_line_and_key() -> None:
    with pytest.raises(DefinitionError) as caught:
        job(expert("a", 'delegates = ["helpr"]'), expert("helper"))
    assert caught.value.message == "Delegate helpr not found (experts.a.delegates[0], perstack.toml:3)"
    assert caught.value.code == "definition.unknown_delegate"
    assert caught.value.hint == 'Did you mean "helper"?'


def test_a_missing_delegate_deeper_down_is_found_before_the_start() -> None:
    with pytest.raises(DefinitionError, match="Delegate gone not found"):
        job(expert("a", 'delegates = ["b"]'), expert("b", 'delegates = ["gone"]'))


def test_a_missing_delegate_of_an_expert_nobody_reaches_does_not_matter() -> None:
    assert list(job(expert("a"), expert("b", 'delegates = ["gone"]')).experts) == ["a"]


def test_a_job_fits_into_a_run_input() -> None:
    found = job(expert("a", 'delegates = ["b"]\ntags = ["t"]\ndescription = "A."'), expert("b"))
    settings = {"runtimeVersion": OURS, "workspace": "/w", "limits": found.limits}
    data = {"jobId": "j", "runId": "r", "expertKey": "a", "experts": found.experts, "settings": settings}
    assert RunInput.model_validate_json(RunInput.model_validate(data).wire_json()).experts == found.experts


# Skills


def base_of(found: ResolvedJob) -> Skill:
    return found.experts["a"].skills[0]


def test_an_absent_skills_table_means_the_base_skill() -> None:
    assert job(expert("a")).experts["a"].skills == (McpStdioSkill(name=BASE_SKILL),)


@pytest.mark.usefixtures("everything_built")
def test_a_skills_table_without_the_base_skill_gets_it() -> None:
    found = job(expert("a", 'skills.x = { type = "mcpSseSkill", endpoint = "https://mcp.example.com" }'))
    assert [skill.name for skill in found.experts["a"].skills] == [BASE_SKILL, "x"]


def test_the_base_skill_keeps_its_choice_of_tools_and_nothing_about_processes() -> None:
    found = job(
        expert("a", f'skills."{BASE_SKILL}" = {{ type = "mcpStdioSkill", command = "npx", args = ["-y", "x"], '
        'pick = ["exec"], omit = ["todo"], requiredEnv = ["E"], rule = "r", description = "d" }')
    )  # fmt: skip
    expected = McpStdioSkill(name=BASE_SKILL, pick=("exec",), omit=("todo",), rule="r", description="d")
    assert found.experts["a"].skills == (expected,)


@pytest.mark.usefixtures("everything_built")
def test_every_kind_of_skill_becomes_what_the_runtime_knows() -> None:
    found = job(
        expert("a"),
        """
        [experts.a.skills.std]
        type = "mcpStdioSkill"
        command = "uvx"
        packageName = "p"
        requiredEnv = ["TOKEN"]
        allowedDomains = ["*.example.com"]
        [experts.a.skills.person]
        type = "interactiveSkill"
        rule = "Ask rarely."
        [experts.a.skills.person.tools.ask]
        description = "Ask."
        inputJsonSchema = '{"type": "object", "properties": {"question": {"type": "string"}}}'
        """,
        host_env={"TOKEN": "t"},
    )
    _, std, person = found.experts["a"].skills
    assert isinstance(std, McpStdioSkill)
    assert (std.command, std.package_name, std.args) == ("uvx", "p", ())
    assert (std.required_env, std.allowed_domains) == (("TOKEN",), ("*.example.com",))
    assert isinstance(person, InteractiveSkill)
    assert person.tools[0].input_schema["properties"] == {"question": {"type": "string"}}
    assert found.allowed_env == ("TOKEN",)


STDIO = '[experts.{}.skills.gh]\ntype = "mcpStdioSkill"\ncommand = "npx"\nargs = ["g"]\nrequiredEnv = ["{}"]'


@pytest.mark.usefixtures("everything_built")
def test_a_missing_required_variable_is_an_error_before_the_start() -> None:
    with pytest.raises(UsageError, match="Skill gh requires environment variable GH_TOKEN"):
        job(expert("a"), STDIO.format("a", "GH_TOKEN"))


@pytest.mark.usefixtures("everything_built")
def test_a_required_variable_may_come_from_an_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env.local").write_text("GH_TOKEN=x")
    job(expert("a"), STDIO.format("a", "GH_TOKEN"), cwd=tmp_path)


def test_the_allowed_variables_come_from_the_whole_configuration_without_provider_credentials() -> None:
    texts = (expert("a"), expert("b"), expert("c"), STDIO.format("b", "GH_TOKEN"), STDIO.format("c", "OPENAI_API_KEY"))
    assert job(*texts).allowed_env == ("GH_TOKEN",)


# Models


@pytest.mark.parametrize(
    ("top", "lines", "overrides", "model"),
    [
        ("", "", Overrides(), "claude-sonnet-5-5"),
        ("defaultModelTier = 'low'", "", Overrides(), "claude-haiku-5-5"),
        ("defaultModelTier = 'low'\nmodel = 'mine'", "", Overrides(), "mine"),
        ("model = 'mine'", "defaultModelTier = 'high'", Overrides(), "claude-opus-5-5"),
        ("model = 'mine'", "defaultModelTier = 'high'", Overrides(model="flag"), "flag"),
    ],
)
def test_the_model_follows_flag_expert_tier_top_model_top_tier(
    top: str, lines: str, overrides: Overrides, model: str
) -> None:
    assert job(top, expert("a", lines), overrides=overrides).experts["a"].model.model == model


def test_each_expert_of_a_job_has_its_own_tier() -> None:
    found = job(expert("a", "defaultModelTier = 'high'\ndelegates = ['b']"), expert("b", "defaultModelTier = 'low'"))
    assert [item.model.model for item in found.experts.values()] == ["claude-opus-5-5", "claude-haiku-5-5"]
    assert found.experts["b"].default_model_tier == "low"


def test_an_unknown_model_has_no_limits() -> None:
    model = job(expert("a"), overrides=Overrides(model="my-gateway-model")).experts["a"].model
    assert (model.context_window, model.max_output_tokens) == (None, None)


@pytest.mark.parametrize(
    ("top", "overrides", "budget"),
    [
        ("", Overrides(), "low"),
        ("reasoningBudget = 'high'", Overrides(), "high"),
        ("reasoningBudget = 0", Overrides(), 0),
        ("reasoningBudget = 'high'", Overrides(reasoning_budget=0), 0),
        ("reasoningBudget = 'high'", Overrides(reasoning_budget="none"), "none"),
    ],
)
def test_the_reasoning_budget_comes_from_override_file_default(
    top: str, overrides: Overrides, budget: str | int
) -> None:
    assert job(top, expert("a"), overrides=overrides).experts["a"].model.reasoning_budget == budget


# Limits and files


def test_limits_come_from_override_file_default() -> None:
    top = "maxSteps = 7\nmaxRetries = 0\n"
    found = job(top, expert("a"), overrides=Overrides(max_steps=3, timeout_ms=1000))
    assert found.limits == Limits(max_steps=3, max_retries=0, timeout_ms=1000)


@pytest.mark.parametrize(
    ("overrides", "option"),
    [
        (Overrides(max_steps=0), "--max-steps must be at least 1, not 0"),
        (Overrides(max_retries=-1), "--max-retries must be at least 0, not -1"),
        (Overrides(timeout_ms=0), "--timeout must be at least 1, not 0"),
    ],
)
def test_an_impossible_limit_is_a_usage_error(overrides: Overrides, option: str) -> None:
    with pytest.raises(UsageError, match=option):
        job(expert("a"), overrides=overrides)


@pytest.mark.parametrize(
    ("top", "overrides", "paths"),
    [
        ("envPath = ['conf/.env', '/etc/env']", Overrides(), ("/workspace/conf/.env", "/etc/env")),
        ("envPath = []", Overrides(), ()),
        ("envPath = ['a']", Overrides(env_paths=("../b", "c")), ("/b", "/workspace/c")),
    ],
)
def test_env_files_are_absolute_and_relative_to_the_working_folder(
    top: str, overrides: Overrides, paths: tuple[str, ...]
) -> None:
    assert job(top, expert("a"), overrides=overrides).env_paths == paths


# Providers

ANTHROPIC = '[provider]\nproviderName = "anthropic"\n[provider.setting]\nbaseUrl = "https://gw.test"\nregion = "eu"\n'


def test_settings_of_the_provider_are_passed_on_and_those_of_others_are_not() -> None:
    assert job(ANTHROPIC, expert("a")).provider_setting == {"baseUrl": "https://gw.test"}


def test_settings_are_not_applied_to_another_provider() -> None:
    found = job(ANTHROPIC, expert("a"), overrides=Overrides(provider="openai"))
    assert (found.provider, found.provider_setting) == ("openai", {})
    assert found.warnings[-1] == (
        "perstack.toml:3: [provider.setting] belongs to anthropic and is not used with openai"
    )


def test_a_model_written_for_another_provider_is_pointed_out() -> None:
    found = job("model = 'm'", expert("a"), overrides=Overrides(provider="openai"))
    assert found.experts["a"].model.model == "m"
    assert "`model` was written for anthropic" in found.warnings[0]


def test_a_provider_of_the_definition_gives_the_models() -> None:
    found = job("[provider]\nproviderName = 'openai'\n", expert("a"))
    assert found.experts["a"].model.provider == "openai"
    assert found.experts["a"].model.model == tier_model("openai", "middle")


@pytest.mark.parametrize("name", ["anthropic", "amazon-bedrock"])
def test_a_provider_is_read_by_name(name: str) -> None:
    assert parse_provider(name) == name


def test_a_misspelt_provider_names_the_one_that_was_meant() -> None:
    with pytest.raises(UsageError) as caught:
        parse_provider("antropic")
    assert caught.value.message == 'Unknown provider "antropic", did you mean "anthropic"?'
    assert "google-vertex" in (caught.value.hint or "")


@pytest.mark.parametrize(("text", "budget"), [("none", "none"), ("high", "high"), ("0", 0), ("4096", 4096)])
def test_a_reasoning_budget_is_read_as_typed(text: str, budget: str | int) -> None:
    assert parse_reasoning_budget(text) == budget


@pytest.mark.parametrize("text", ["", "lots", "-1", "1.5", "٣", "9" * 5000])
def test_any_other_reasoning_budget_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="is not a reasoning budget"):
        parse_reasoning_budget(text)


# Versions


@pytest.mark.parametrize("needed", ["v1.0", "v1.2", "1.2.3", "1.2.3-rc.1", "0.9.9", "1.2.2+build"])
def test_a_runtime_version_we_have_is_enough(needed: str) -> None:
    job(expert("a", f"minRuntimeVersion = '{needed}'"))


@pytest.mark.parametrize("needed", ["v1.3", "v2.0", "1.2.4", "2.0.0-rc.1", "1.10.0"])
def test_a_higher_runtime_version_names_both(needed: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        job(expert("a", f"minRuntimeVersion = '{needed}'"))
    assert caught.value.code == "definition.runtime_version"
    assert f"Expert a needs Perstack {needed} or newer, this is 1.2.3" in caught.value.message
    assert "experts.a.minRuntimeVersion, perstack.toml:3" in caught.value.message


def test_a_pre_release_of_ours_is_older_than_its_release() -> None:
    with pytest.raises(DefinitionError):
        job(expert("a", "minRuntimeVersion = '2.0.0'"), runtime_version="2.0.0.dev1")
    job(expert("a", "minRuntimeVersion = 'v1.0'"), runtime_version="1.0.0+local")


def test_the_runtime_version_of_an_expert_nobody_reaches_does_not_matter() -> None:
    job(expert("a"), expert("b", "minRuntimeVersion = 'v9.0'"))


# Not built yet


@pytest.mark.parametrize(
    ("lines", "path", "line"),
    [
        ('tags = []\ndelegates = ["@org/tool@1.0.0"]', "experts.a.delegates[0]", 4),
    ],
)
def test_what_is_not_built_is_refused_with_file_line_and_key(lines: str, path: str, line: int) -> None:
    with pytest.raises(DefinitionError) as caught:
        job(expert("a", lines))
    assert caught.value.code == "definition.not_built"
    assert caught.value.details == {"file": "perstack.toml", "line": line, "path": path}
    assert f"({path}, perstack.toml:{line})" in caught.value.message


def test_what_is_not_built_is_refused_in_a_delegate_too() -> None:
    with pytest.raises(DefinitionError, match=re.escape("experts.b.delegates[0]")):
        job(expert("a", 'delegates = ["b"]'), expert("b", 'delegates = ["@org/tool@1.0.0"]'))


def test_what_an_unreached_expert_needs_does_not_matter() -> None:
    job(expert("a"), expert("b", 'providerTools = ["nothing"]'))


# Tools and skills of the provider


def test_provider_tools_come_with_the_options_their_provider_takes() -> None:
    lines = (
        'providerTools = ["webSearch", "webFetch"]\n'
        'providerToolOptions.webSearch = { maxUses = 3, allowedDomains = ["a.test"] }\n'
        "providerSkills = [{ type = 'builtin', skillId = 'pdf' }, "
        "{ type = 'custom', name = 'mine', definition = '{\"version\": \"1\"}' }]"
    )
    found = job(expert("a", lines)).experts["a"]
    assert found.provider_tools == (
        ProviderTool(name="webSearch", options={"maxUses": 3, "allowedDomains": ["a.test"]}),
        ProviderTool(name="webFetch"),
    )
    assert found.provider_skills == (
        ProviderSkill(type="builtin", skill_id="pdf"),
        ProviderSkill(type="custom", name="mine", definition={"version": "1"}),
    )


@pytest.mark.parametrize(
    ("provider", "lines", "words", "hint"),
    [
        ("anthropic", 'providerTools = ["webSerch"]', "anthropic has no provider tool webSerch", "webSearch"),
        ("openai", 'providerTools = ["webFetch"]', "openai has no provider tool webFetch", "codeInterpreter"),
        ("deepseek", 'providerTools = ["webSearch"]', "deepseek has no provider tool webSearch", "deepseek has none."),
        ("openai", 'providerTools = ["fileSearch"]', "needs providerToolOptions.fileSearch.vectorStoreIds", None),
        (
            "google",
            "providerSkills = [{ type = 'builtin', skillId = 'pdf' }]",
            "google has no provider skills",
            "anthropic",
        ),
    ],
)
def test_what_the_provider_does_not_have_is_an_error_with_its_place(
    provider: str, lines: str, words: str, hint: str | None
) -> None:
    with pytest.raises(DefinitionError, match=re.escape(words)) as caught:
        job(expert("a", lines), overrides=Overrides(provider=provider))
    assert caught.value.code == "definition.provider_tool"
    assert "perstack.toml:" in caught.value.message
    assert hint is None or hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("provider", "option"), [("anthropic", "fileSearch"), ("azure-openai", "webSearch"), ("google", "webSearch")]
)
def test_an_option_that_is_not_sent_is_told(provider: str, option: str) -> None:
    lines = "providerToolOptions = { webSearch.maxUses = 1, fileSearch.vectorStoreIds = ['x'] }"
    warnings = job(expert("a", lines), overrides=Overrides(provider=provider)).warnings
    assert any(f"providerToolOptions.{option} is not used" in warning for warning in warnings)


def test_empty_provider_tools_need_nothing() -> None:
    job(expert("a", "providerTools = []\nproviderSkills = []"))


# Names of delegate tools


def test_a_delegate_named_like_an_offered_base_tool_is_pointed_out() -> None:
    found = job(expert("a", 'delegates = ["exec"]'), expert("exec"))
    assert len(found.warnings) == 1
    assert "another tool is called `exec`" in found.warnings[0]


def test_a_delegate_named_like_a_base_tool_that_is_not_picked_keeps_its_name() -> None:
    skill = 'skills."@perstack/base" = { type = "mcpStdioSkill", command = "npx", pick = ["readTextFile"] }'
    assert job(expert("a", f'delegates = ["exec"]\n{skill}'), expert("exec")).warnings == ()


def test_two_delegates_with_one_tool_name_are_pointed_out() -> None:
    found = job(expert("a", 'delegates = ["plan", "@a/plan"]'), expert("plan"), expert("@a/plan"))
    assert found.warnings == ("perstack.toml:3: another tool is called `plan`, so @a/plan is offered as `_a_plan`",)


# While a job runs

SETTINGS = ModelSettings(provider="anthropic", model_override="flag", reasoning_budget="medium")
RUNNING = RunningJob(settings=SETTINGS, runtime_version=OURS, known=("helper",), allowed_env=("GH_TOKEN",))


def made(*texts: str, root: str | None = None, running: RunningJob = RUNNING) -> list[str]:
    return list(experts_from_text("\n".join(texts), source="made.toml", job=running, root=root))


def test_a_definition_made_at_run_time_takes_the_jobs_model_and_reasoning() -> None:
    text = "model = 'other'\nreasoningBudget = 'high'\n[provider]\nproviderName = 'openai'\n" + expert("n")
    found = experts_from_text(text, source="made.toml", job=RUNNING)["n"]
    assert (found.model.provider, found.model.model, found.model.reasoning_budget) == ("anthropic", "flag", "medium")


def test_tiers_of_a_definition_made_at_run_time_are_the_jobs_providers() -> None:
    running = RunningJob(settings=ModelSettings(provider="deepseek", default_tier="high"), runtime_version=OURS)
    text = expert("n") + expert("m", "defaultModelTier = 'low'")
    found = experts_from_text(text, source="made.toml", job=running)
    assert [item.model.model for item in found.values()] == ["deepseek-v4-pro", "deepseek-flash"]


def test_with_a_root_only_what_it_reaches_is_taken_and_checked() -> None:
    texts = (expert("n", 'delegates = ["@n/x"]'), expert("@n/x"), expert("other", 'delegates = ["gone"]'))
    assert made(*texts, root="n") == ["n", "@n/x"]
    with pytest.raises(DefinitionError, match="Delegate gone not found"):
        made(*texts)


def test_a_new_expert_may_delegate_to_one_the_run_knows() -> None:
    assert made(expert("n", 'delegates = ["helper"]')) == ["n"]


def test_an_unknown_root_lists_what_the_file_has() -> None:
    with pytest.raises(UsageError) as caught:
        made(expert("n"), root="missing")
    assert caught.value.message == 'Expert "missing" not found in made.toml'
    assert caught.value.hint == "Available experts: n."


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[experts.n]\n", "definition.invalid"),
        ("= 1", "definition.syntax"),
        (expert("n", 'delegates = ["n"]'), "definition.scope"),
        (expert("n", "minRuntimeVersion = 'v9.0'"), "definition.runtime_version"),
        (expert("n", 'providerTools = ["webSerch"]'), "definition.provider_tool"),
        (expert("n", 'delegates = ["@org/tool@1.0.0"]'), "definition.not_built"),
        (expert("n") + STDIO.format("n", "AWS_PROFILE"), "definition.env_not_allowed"),
    ],
)
def test_a_definition_made_at_run_time_is_checked_like_a_file(text: str, code: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        made(text)
    assert caught.value.code == code
    assert "made.toml" in caught.value.message


@pytest.mark.parametrize("variable", ["ANTHROPIC_API_KEY", "AWS_SECRET_ACCESS_KEY", "PERSTACK_API_KEY"])
def test_a_definition_made_at_run_time_never_gets_a_credential(variable: str) -> None:
    running = RunningJob(settings=SETTINGS, runtime_version=OURS, allowed_env=(variable,))
    with pytest.raises(DefinitionError) as caught:
        made(expert("n") + STDIO.format("n", variable), running=running)
    assert caught.value.code == "definition.env_not_allowed"
    assert f"{variable} may not be required" in caught.value.message


def test_expert_tables_may_come_as_data() -> None:
    tables = {"n": {"instruction": "Be n.", "delegates": ["helper"]}}
    found = experts_from_tables(tables, source="createExpert", job=RUNNING)
    assert found["n"].skills == (McpStdioSkill(name=BASE_SKILL),)


def test_bad_expert_tables_name_their_source() -> None:
    with pytest.raises(DefinitionError, match=r"experts\.n\.instruction: is required \(createExpert\)"):
        experts_from_tables({"n": {}}, source="createExpert", job=RUNNING)


def test_a_delegation_can_be_checked_alone() -> None:
    check_delegation("@a/x", "b")
    with pytest.raises(DefinitionError) as caught:
        check_delegation("@a/x", "@b/y")
    assert caught.value.code == "definition.scope"


# The built-in team

BASE_TOOLS = {
    "attemptCompletion", "todo", "clearTodo", "exec", "readTextFile", "readImageFile", "readPdfFile", "writeTextFile",
    "editTextFile", "addSkill", "removeSkill", "addDelegate", "removeDelegate", "createExpert", "addDelegateFromConfig",
}  # fmt: skip


def built_in() -> ResolvedJob:
    return resolve_job(builtin_config(), "create-expert", host_env={}, cwd=CWD, runtime_version="0.1.0")


def picks(found: ResolvedJob, key: str) -> set[str]:
    (base,) = found.experts[key].skills
    assert isinstance(base, McpStdioSkill)
    return set(base.pick)


def test_the_built_in_team_resolves() -> None:
    found = built_in()
    assert list(found.experts) == [
        "create-expert",
        "@create-expert/plan",
        "@create-expert/write",
        "@create-expert/verify",
    ]
    assert found.warnings == ()
    assert found.experts["create-expert"].model.model == "claude-opus-5-5"
    for item in found.experts.values():
        assert item.description
        assert len(item.instruction) <= MAX_INSTRUCTION


def test_the_built_in_coordinator_is_thin() -> None:
    found = built_in()
    assert picks(found, "create-expert") == {"readTextFile", "exec", "attemptCompletion"}
    assert found.experts["create-expert"].delegates == tuple(found.experts)[1:]


def test_the_built_in_team_picks_only_tools_that_exist_and_can_always_finish() -> None:
    found = built_in()
    for key in found.experts:
        assert picks(found, key) <= BASE_TOOLS
        assert "attemptCompletion" in picks(found, key)


def test_the_built_in_writer_and_verifier_read_teams_and_the_verifier_writes_nothing() -> None:
    found = built_in()
    readers = [key for key in found.experts if "addDelegateFromConfig" in picks(found, key)]
    assert readers == ["@create-expert/write", "@create-expert/verify"]
    assert not {"writeTextFile", "editTextFile"} & picks(found, "@create-expert/verify")


def test_the_plan_has_its_six_sections() -> None:
    instruction = built_in().experts["@create-expert/plan"].instruction
    headings = re.findall(r"^## (.+)$", instruction, re.MULTILINE)
    assert headings == [
        "Expert Purpose", "Domain Knowledge", "Use Cases", "Test Query", "Verification Signals", "Architecture",
    ]  # fmt: skip


def test_the_example_the_writer_learns_from_is_a_valid_definition() -> None:
    instruction = built_in().experts["@create-expert/write"].instruction
    (example,) = re.findall(r"```toml\n(.+?)```", instruction, re.DOTALL)
    config = load_text(example, source="example.toml")
    assert config.warnings == ()
    found = resolve_job(config, "release-notes", host_env={}, cwd=CWD, runtime_version="0.1.0")
    assert len(found.experts) == 3
    for key in found.experts:
        assert picks(found, key) <= BASE_TOOLS
