"""Skills as a command asks them itself: `install` and `doctor` have no worker."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..activities.redaction import Redactor, secrets_of_run
from ..activities.skills.endpoints import EndpointPolicy
from ..activities.skills.listing import SkillLister
from ..core.expert import Expert, McpStdioSkill
from ..definitions.environment import check_required_env, read_env
from ..definitions.resolve import LocalExperts


def skill_lister(local: LocalExperts) -> SkillLister:
    """Starts the skills of `local` in the current folder, with the environment a run would have.

    Raises:
        UsageError: a variable that a skill requires is missing, or `PERSTACK_ALLOW_ENDPOINTS` makes no sense.
    """
    env = read_env(local.env_paths, os.environ)
    check_required_env(local.experts.values(), env)
    endpoints = EndpointPolicy.from_env(os.environ)
    return lister_of(local.experts.values(), env=env, file_env=read_env(local.env_paths, {}), endpoints=endpoints)


def lister_of(
    experts: Iterable[Expert], *, env: Mapping[str, str], file_env: Mapping[str, str], endpoints: EndpointPolicy
) -> SkillLister:
    """Starts skills in the current folder with the variables `env`, of which env files set `file_env`."""
    skills = (skill for expert in experts for skill in expert.skills)
    required = {name for skill in skills if isinstance(skill, McpStdioSkill) for name in skill.required_env}
    secrets = secrets_of_run(file_env, os.environ, required_env=required, workspace=str(Path.cwd()))
    return SkillLister(env, Path.cwd(), endpoints, Redactor(secrets))
