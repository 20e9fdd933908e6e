"""The definition, its env files and its lock."""

import os
from collections.abc import Iterator

from ...core.expert import McpStdioSkill
from ...core.failures import PerstackError
from ...definitions.lockfile import LOCK_NAME, drift, read_lockfile
from ..advice import domains_advice
from ..diagnostics import ExitCode
from .report import Check, failed, passed, unneeded, warned
from .subject import Subject

_LABEL = "definition"


def definition_checks(subject: Subject) -> Iterator[Check]:
    """Whether the definition can run, and what it says that has no effect."""
    if subject.problem is not None:
        hint = "Correct the definition." if subject.loaded else "Correct the file, or name another one with --config."
        yield failed(_LABEL, subject.problem, code=ExitCode.USAGE, hint=hint)
    elif subject.is_builtin:
        hint = '`perstack run create-expert "<what the team is for>"` writes one; --config names one elsewhere.'
        yield warned(_LABEL, "there is no perstack.toml here or above; only the built-in experts can run", hint)
    elif subject.loaded is not None and subject.local is not None:
        own = len(subject.loaded.own_experts)
        yield passed(_LABEL, f"{subject.loaded.source}, {own} {'expert' if own == 1 else 'experts'}")
    if subject.loaded is not None:
        for text in subject.loaded.warnings:
            yield warned(_LABEL, text)
    if subject.local is not None:
        for text in subject.local.warnings:
            yield warned(_LABEL, text)
        for key, expert in subject.local.experts.items():
            for skill in expert.skills:
                if isinstance(skill, McpStdioSkill):
                    yield from (warned(_LABEL, f"{key}: {text}") for text in domains_advice(skill))


def lock_checks(subject: Subject) -> Iterator[Check]:
    """Whether the lock still says what the definition says."""
    loaded = subject.loaded
    if loaded is None or loaded.directory is None:
        yield unneeded("lock", "there is no definition file for it to stand beside")
        return
    try:
        lock = read_lockfile(loaded.directory)
    except PerstackError as error:
        yield warned("lock", f"{error.message}; runs ignore it", error.hint)
        return
    if lock is None:
        yield unneeded("lock", f"there is no {LOCK_NAME}: skills are started to see what they offer")
    elif subject.local is None:
        yield unneeded("lock", f"{loaded.directory / LOCK_NAME} cannot be compared while the definition is wrong")
    else:
        own = {key: expert for key, expert in subject.local.experts.items() if key in loaded.own_experts}
        drifted = list(drift(lock, own))
        if drifted:
            hint = f"`perstack install` writes {LOCK_NAME} anew; until then `perstack run --frozen` refuses."
            yield warned("lock", "\n".join(drifted), hint)
        else:
            yield passed("lock", f"{loaded.directory / LOCK_NAME} is up to date")


def env_checks(subject: Subject, given: tuple[str, ...]) -> Iterator[Check]:
    """The env files: which are there and how much they set, never what."""
    label = "env files"
    told: list[str] = []
    for file in subject.files:
        if file.error is not None:
            yield failed(label, file.error, code=ExitCode.USAGE)
        elif not os.path.exists(file.path):
            if given:
                yield warned(label, f"--env-path {file.path}: there is no such file", "Correct --env-path.")
        else:
            count = len(file.values)
            told.append(f"{file.path} ({count} {'variable' if count == 1 else 'variables'})")
    if told:
        yield passed(label, ", ".join(told))
    elif not given and all(file.error is None for file in subject.files):
        yield unneeded(label, "there are none; variables come from the environment alone")
