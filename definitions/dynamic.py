"""Experts that come into being while a job runs: the same checks, the job's provider and limits."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ..core.expert import Expert
from .checks import SECRET_VARIABLES
from .document import Document, located_error
from .experts import Definition, ModelSettings
from .hosts import AllowedEndpoints
from .load import LoadedConfig, load_document, load_text
from .resolve import check_runtime, reachable_definitions, refuse_unbuilt, unknown_expert


@dataclass(frozen=True, kw_only=True)
class RunningJob:
    """What a definition made while a job runs is measured against."""

    settings: ModelSettings
    runtime_version: str
    known: Collection[str] = ()
    """Experts the run has already, which new ones may delegate to."""
    allowed_env: Collection[str] = ()
    """Variables new ones may require; provider credentials never."""
    allowed_endpoints: AllowedEndpoints = frozenset()
    """What a skill of theirs may reach beyond public endpoints: the worker's setting, never the definition's."""


def experts_from_text(text: str, *, source: str, job: RunningJob, root: str | None = None) -> dict[str, Expert]:
    """The experts of a TOML text, or only `root` and what it reaches; nothing else in the text counts.

    Raises:
        UsageError: `root` is not in the text.
        DefinitionError: as for a file.
    """
    return _experts(load_text(text, source=source, allowed=job.allowed_endpoints), job, root)


def experts_from_tables(
    experts: Mapping[str, Any], *, source: str, job: RunningJob, root: str | None = None
) -> dict[str, Expert]:
    """Like `experts_from_text`, for expert tables that come as data: what stands under `experts`, by key."""
    document = Document(source, {"experts": dict(experts)})
    return _experts(load_document(document, allowed=job.allowed_endpoints), job, root)


def _experts(loaded: LoadedConfig, job: RunningJob, root: str | None) -> dict[str, Expert]:
    if root is not None and root not in loaded.toml.experts:
        raise unknown_expert(root, loaded)
    used = reachable_definitions([root] if root is not None else loaded.toml.experts, loaded, job.known)
    check_runtime(used, job.runtime_version)
    for definition in used:
        _check_variables(definition, job.allowed_env)
    refuse_unbuilt(used)
    return {definition.key: definition.expert(job.settings) for definition in used}


def _check_variables(definition: Definition, allowed_env: Collection[str]) -> None:
    for path, variable in definition.required_env():
        if variable in SECRET_VARIABLES or variable not in allowed_env:
            raise located_error(
                definition.document,
                path,
                f"{variable} may not be required by a definition made while a job runs",
                code="definition.env_not_allowed",
                hint=f"Allowed here: {', '.join(sorted(allowed_env)) or 'none'}.",
            )
