"""Which variables of the worker a command or a skill may see, and which nobody may set."""

from collections.abc import Iterable, Mapping

from ...core.failures import UsageError

SAFE_NAMES = frozenset(
    {
        "PATH",
        "HOME",
        "SHELL",
        "TERM",
        "NODE_PATH",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "PERSTACK_PROXY_URL",
        "NPM_CONFIG_PROXY",
        "NPM_CONFIG_HTTPS_PROXY",
        "LANG",
        "TMPDIR",
    }
)
"""Upper-case names that pass from the worker to its children."""
SAFE_PREFIXES = ("LC_",)

PROTECTED_NAMES = frozenset(
    {
        "PATH",
        "HOME",
        "SHELL",
        # Code that an interpreter or a shell loads before the program itself.
        "BASH_ENV",
        "ENV",
        "ZDOTDIR",
        "PROMPT_COMMAND",
        "SHELLOPTS",
        "BASHOPTS",
        "NODE_PATH",
        "NODE_OPTIONS",
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONSTARTUP",
        "PYTHONUSERBASE",
        "PYTHONBREAKPOINT",
        "PERL5LIB",
        "PERL5OPT",
        "PERL5DB",
        "PERLLIB",
        "RUBYLIB",
        "RUBYOPT",
        "JAVA_TOOL_OPTIONS",
        "_JAVA_OPTIONS",
        "JDK_JAVA_OPTIONS",
        "GCONV_PATH",
        "GLIBC_TUNABLES",
        "DOTNET_STARTUP_HOOKS",
        "PHPRC",
        "PHP_INI_SCAN_DIR",
        # Modules for whatever speaks TLS.
        "OPENSSL_CONF",
        "OPENSSL_ENGINES",
        "OPENSSL_MODULES",
        # Whom a program trusts.
        "NODE_EXTRA_CA_CERTS",
        "NODE_TLS_REJECT_UNAUTHORIZED",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        # Programs and settings that git runs or obeys; GIT_AUTHOR_NAME and the like stay free.
        "GIT_SSH",
        "GIT_SSH_COMMAND",
        "GIT_ASKPASS",
        "GIT_EXEC_PATH",
        "GIT_EXTERNAL_DIFF",
        "GIT_PROXY_COMMAND",
        "GIT_TEMPLATE_DIR",
        "GIT_SSL_NO_VERIFY",
        "GIT_SSL_CAINFO",
        "GIT_SSL_CAPATH",
    }
)
"""Upper-case names that no caller may set or override."""
PROTECTED_PREFIXES = ("LD_", "DYLD_", "BASH_FUNC_", "GIT_CONFIG", "NPM_CONFIG_", "LUA_INIT")


def is_safe(name: str) -> bool:
    """Whether the worker's own value of `name` may reach a child."""
    upper = name.upper()
    return upper in SAFE_NAMES or upper.startswith(SAFE_PREFIXES)


def is_protected(name: str) -> bool:
    """Whether `name` decides what code runs or whom it trusts, so that no caller may set it."""
    upper = name.upper()
    return upper in PROTECTED_NAMES or upper.startswith(PROTECTED_PREFIXES)


def exec_environment(host_env: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a command: the safe part of the worker's and `extra` without protected names."""
    own = {name: value for name, value in extra.items() if not is_protected(name)}
    return {**_safe_part(host_env), **own}


def skill_environment(host_env: Mapping[str, str], *, skill_name: str, required_env: Iterable[str]) -> dict[str, str]:
    """The environment of a skill's process: the safe part of the worker's and the variables it requires.

    Raises:
        UsageError: a required variable is missing or empty.
    """
    environment = _safe_part(host_env)
    for name in required_env:
        if is_protected(name):
            continue
        value = host_env.get(name)
        if not value:
            raise UsageError(
                f"Skill {skill_name} requires the environment variable {name}, which is not set.",
                code="skill.missing_env",
                hint=f"Set {name} in the environment or in an env file of the run.",
            )
        environment[name] = value
    return environment


def _safe_part(host_env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in host_env.items() if value and is_safe(name)}
