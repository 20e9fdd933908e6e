"""Variables that decide what code runs, or whom it trusts: nobody sets them for a child (contract 2 §3.3, §13.17)."""

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


def is_protected(name: str) -> bool:
    """Whether `name` decides what code runs or whom it trusts, so that no caller may set it."""
    upper = name.upper()
    return upper in PROTECTED_NAMES or upper.startswith(PROTECTED_PREFIXES)
