"""Attacks through `exec` and through the environment of what the worker starts."""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from attacks.arena import PLANTED, Arena, text_of
from perstack.activities.skills.environment import skill_environment
from perstack.activities.skills.results import TEXT_LIMIT
from perstack.core.failures import UsageError
from support.skills import bounded, command, is_running

METACHARACTERS = (
    "; touch {outside}/planted",
    "&& touch {outside}/planted",
    "|| touch {outside}/planted",
    "| tee {outside}/planted",
    "& touch {outside}/planted &",
    "> {outside}/planted",
    "\ntouch {outside}/planted\n",
    "$(touch {outside}/planted)",
    "`touch {outside}/planted`",
    "'; touch {outside}/planted; '",
    '"; touch {outside}/planted; "',
    "\\'; touch {outside}/planted; \\'",
    "<(touch {outside}/planted)",
    "$HOME",
    "${{HOME}}",
    "$ANTHROPIC_API_KEY",
    "$((1+1))",
    "~",
    "~/canary.txt",
    "*",
    "{outside}/*",
    "{{a,b}}",
    "# comment",
    "!!",
    "%s%n",
    "\\n",
    "\t \t",
    "",
    "--version",
    "- -",
)
"""Texts that a shell would make something of."""
PROTECTED = (
    *("PATH", "HOME", "SHELL", "NODE_PATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES"),
    *("DYLD_LIBRARY_PATH", "NODE_OPTIONS", "PYTHONPATH", "PERL5LIB", "RUBYLIB"),
    *("BASH_ENV", "PYTHONSTARTUP", "PERL5OPT", "RUBYOPT", "NODE_EXTRA_CA_CERTS", "GIT_SSH_COMMAND"),
    *("ENV", "LD_AUDIT", "PYTHONHOME", "PERL5DB", "JAVA_TOOL_OPTIONS", "GIT_CONFIG_COUNT", "GIT_EXEC_PATH"),
    *(
        "npm_config_registry",
        "npm_config_script_shell",
        "SSL_CERT_FILE",
        "GCONV_PATH",
        "OPENSSL_CONF",
        "BASH_FUNC_ls%%",
    ),
)
"""What no caller may set: contract 2 §3.3, and what §13.17 adds; not taken from the code that is attacked."""
OWN = frozenset({"PATH", "HOME", "SHELL", "NODE_PATH"})
"""Those of the worker that pass to its children by contract, so that a skill which names them gets the worker's."""
_FLOOD = 4 * 1024 * 1024
# What `exec` keeps of its two streams, with the escapes of JSON and some words around it.
_MOST = TEXT_LIMIT + 1024


@dataclass(frozen=True)
class CommandAttack:
    """A call of `exec` and the judgement of its answer."""

    name: str
    args: Callable[[Arena], dict[str, Any]]
    judge: Callable[[Arena, dict[str, Any]], list[str]]
    is_demon: bool = False
    """Whether something of it may run until the session ends."""

    def __str__(self) -> str:
        return f"exec: {self.name}"

    async def run(self, arena: Arena) -> list[str]:
        """What came of it."""
        before = arena.guarded()
        async with arena.open():
            outcome = await arena.call("exec", self.args(arena))
            found = arena.damage(before, outcome) + self.judge(arena, json.loads(text_of(outcome)))
            if not self.is_demon:
                found += _left(arena)
        return found + _left(arena)


@dataclass(frozen=True)
class SkillAttack:
    """A skill that asks for a variable it must not get."""

    variable: str

    def __str__(self) -> str:
        return f"skill: requires {self.variable}"

    async def run(self, arena: Arena) -> list[str]:
        """What a process with the skill's environment sees."""
        host = {**arena.host_env, self.variable: PLANTED}
        try:
            environment = skill_environment(host, skill_name="spy", required_env=[self.variable])
        except UsageError:
            return []
        async with bounded():
            process = await asyncio.create_subprocess_exec("env", env=environment, stdout=asyncio.subprocess.PIPE)
            shown, _ = await process.communicate()
        return [text for text in (arena.canary, PLANTED) if text.encode() in shown]


def metacharacter_attacks() -> Iterator[CommandAttack]:
    """Each text as an argument, as a variable and as the program."""
    for text in METACHARACTERS:
        yield CommandAttack(f"the argument {text!r}", _as_argument(text), _repeats(text))
        yield CommandAttack(f"the variable {text!r}", _as_variable(text), _repeats(text))
        yield CommandAttack(
            f"the program {text!r}", _as_program(text), lambda arena, answer: _none_if("error" in answer)
        )


def environment_attacks() -> Iterator[CommandAttack | SkillAttack]:
    """Each protected variable, in several spellings, for a command and for a skill."""
    yield CommandAttack("looks at its environment", lambda arena: command("env"), lambda arena, answer: [])
    for name in PROTECTED:
        for spelled in dict.fromkeys((name, name.upper(), name.lower(), name.title())):
            yield CommandAttack(f"sets {spelled}", _setting(spelled), _does_not_see_it)
        if name not in OWN:
            yield SkillAttack(name)
    for name in ("A=B", "", "LD_PRELOAD=x", "A\0B"):
        yield CommandAttack(f"sets {name!r}", _setting(name), lambda arena, answer: _none_if("error" in answer))


def process_attacks() -> Iterator[CommandAttack]:
    """Commands that would stay, or that say too much."""
    for name, script in (
        ("children in the background", "sleep 1000 & sleep 1000 & echo $! > pids; wait"),
        ("a child that ignores SIGTERM", "(trap '' TERM; sleep 1000; sleep 1000) & wait"),
        ("a child in a session of its own", "setsid sleep 1000 & wait"),
        ("a grandchild in a session of its own", "setsid sh -c 'setsid sleep 1000 & wait' & wait"),
        ("an orphan in a session of its own", "(setsid sleep 1000 &) ; sleep 1000"),
        ("a child without its variables", "echo $$ > pids; env -i setsid sleep 1000 & echo $! >> pids; wait"),
        ("a stopped child", "sleep 1000 & kill -STOP $!; wait"),
        ("a family", "for i in 1 2 3; do (for j in 1 2 3; do setsid sleep 1000 & done; wait) & done; wait"),
    ):
        yield CommandAttack(name, _shell(script, timeout=300), _timed_out)
    for name, script in (
        ("a demon", "setsid sleep 1000 > /dev/null 2>&1 & echo $! > pids"),
        ("a demon that holds the output", "sleep 1000 & echo $! > pids"),
        ("a demon that ignores SIGTERM", "(trap '' TERM; exec setsid sleep 1000 > /dev/null 2>&1) & echo $! > pids"),
        ("a demon's child without its variables", "setsid sh -c 'env -i sleep 1000; :' > /dev/null 2>&1 & :"),
    ):
        yield CommandAttack(name, _shell(script, timeout=10_000), _succeeded, is_demon=True)
    for name, script, is_endless in (
        ("output without end", "yes canary", True),
        ("errors without end", "yes canary >&2", True),
        ("both without end", "yes 1 & yes 2 >&2 & wait", True),
        ("a line without end", "tr '\\0' x < /dev/zero", True),
        ("much output", f"head -c {_FLOOD} /dev/zero | tr '\\0' x", False),
        ("much that is no text", f"head -c {_FLOOD} /dev/urandom", False),
        ("much that JSON has to escape", f"head -c {_FLOOD} /dev/zero | tr '\\0' '\"'", False),
        ("control characters", f"head -c {_FLOOD} /dev/zero", False),
    ):
        judge = _timed_out_and_short if is_endless else _is_short
        yield CommandAttack(name, _shell(script, timeout=300 if is_endless else 20_000), judge)


def _as_argument(text: str) -> Callable[[Arena], dict[str, Any]]:
    return lambda arena: command("printf", "%s", _filled(text, arena) + "|")


def _as_variable(text: str) -> Callable[[Arena], dict[str, Any]]:
    return lambda arena: command("sh", "-c", 'printf "%s" "$MINE"', env={"MINE": _filled(text, arena) + "|"})


def _as_program(text: str) -> Callable[[Arena], dict[str, Any]]:
    return lambda arena: command(f"echo {_filled(text, arena)}")


def _repeats(text: str) -> Callable[[Arena, dict[str, Any]], list[str]]:
    return lambda arena, answer: _none_if(answer.get("output") == _filled(text, arena) + "|")


def _filled(text: str, arena: Arena) -> str:
    return text.format(outside=arena.outside)


def _setting(name: str) -> Callable[[Arena], dict[str, Any]]:
    return lambda arena: command("/usr/bin/env", env={name: PLANTED})


def _does_not_see_it(arena: Arena, answer: dict[str, Any]) -> list[str]:
    return _none_if("output" in answer and PLANTED not in answer["output"])


def _shell(script: str, *, timeout: int) -> Callable[[Arena], dict[str, Any]]:
    return lambda arena: command("sh", "-c", script, timeout=timeout)


def _timed_out(arena: Arena, answer: dict[str, Any]) -> list[str]:
    return _none_if(answer.get("timedOut") is True)


def _succeeded(arena: Arena, answer: dict[str, Any]) -> list[str]:
    return _none_if("output" in answer)


def _left(arena: Arena) -> list[str]:
    """The processes of an attack that run still."""
    pids = arena.root / "pids"
    written = [int(pid) for pid in pids.read_text().split()] if pids.exists() else []
    return [f"left process {pid}" for pid in {*arena.processes(), *written} if is_running(pid)]


def _is_short(arena: Arena, answer: dict[str, Any]) -> list[str]:
    return _none_if(len(json.dumps(answer, ensure_ascii=False).encode()) <= _MOST)


def _timed_out_and_short(arena: Arena, answer: dict[str, Any]) -> list[str]:
    return _timed_out(arena, answer) + _is_short(arena, answer)


def _none_if(is_fine: bool) -> list[str]:
    return [] if is_fine else ["answered something else"]
