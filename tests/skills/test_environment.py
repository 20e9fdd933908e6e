"""Which variables reach commands and skills."""

import pytest
from perstack.activities.skills.environment import exec_environment, skill_environment
from perstack.core.failures import UsageError
from perstack.definitions.protected import is_protected

HOST = {
    "PATH": "/bin",
    "HOME": "/home/me",
    "LANG": "C.UTF-8",
    "LC_ALL": "C",
    "TMPDIR": "/tmp/mine",
    "https_proxy": "http://proxy",
    "TERM": "",
    "ANTHROPIC_API_KEY": "secret",
    "AWS_PROFILE": "secret",
    "TEMPORAL_API_KEY": "secret",
    "GITHUB_TOKEN": "secret",
    "LD_PRELOAD": "host.so",
    "PYTHONPATH": "/host",
}
SAFE = {name: HOST[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "https_proxy")}


def test_only_safe_variables_with_a_value_pass() -> None:
    assert exec_environment(HOST, {}) == SAFE


def test_a_callers_own_variables_are_added() -> None:
    assert exec_environment(HOST, {"MINE": "1", "EMPTY": "", "LANG": "de"}) == {
        **SAFE,
        "MINE": "1",
        "EMPTY": "",
        "LANG": "de",
    }


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "path",
        "Home",
        "SHELL",
        "LD_PRELOAD",
        "ld_preload",
        "LD_AUDIT",
        "DYLD_INSERT_LIBRARIES",
        "NODE_OPTIONS",
        "NODE_PATH",
        "NODE_EXTRA_CA_CERTS",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "PERL5LIB",
        "PERL5OPT",
        "RUBYLIB",
        "RUBYOPT",
        "BASH_ENV",
        "Bash_Env",
        "ENV",
        "BASH_FUNC_ls%%",
        "GIT_SSH_COMMAND",
        "GIT_CONFIG_COUNT",
        "JAVA_TOOL_OPTIONS",
        "npm_config_registry",
        "OPENSSL_CONF",
        "LUA_INIT_5_4",
        "DOTNET_STARTUP_HOOKS",
        "PHP_INI_SCAN_DIR",
    ],
)
def test_protected_variables_cannot_be_set_in_any_case(name: str) -> None:
    assert is_protected(name)
    assert exec_environment(HOST, {name: "evil"}) == SAFE


@pytest.mark.parametrize("name", ["GIT_AUTHOR_NAME", "CI", "DEBUG", "TZ", "PATHS", "MY_PATH"])
def test_ordinary_variables_are_not_protected(name: str) -> None:
    assert exec_environment({}, {name: "x"}) == {name: "x"}


def test_a_skill_gets_what_it_requires_and_nothing_else() -> None:
    assert skill_environment(HOST, skill_name="github", required_env=["GITHUB_TOKEN"]) == {
        **SAFE,
        "GITHUB_TOKEN": "secret",
    }


def test_a_skill_cannot_require_a_protected_variable() -> None:
    assert skill_environment(HOST, skill_name="s", required_env=["LD_PRELOAD", "PYTHONPATH", "PATH"]) == SAFE


@pytest.mark.parametrize("name", ["MISSING", "TERM"])
def test_a_missing_or_empty_variable_is_an_error_naming_skill_and_variable(name: str) -> None:
    with pytest.raises(UsageError, match=rf"github.*{name}") as caught:
        skill_environment(HOST, skill_name="github", required_env=[name])
    assert caught.value.code == "skill.missing_env"
