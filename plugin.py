"""`PerstackPlugin`: Perstack on a Temporal client and worker that somebody else has made."""

import asyncio
import dataclasses
import os
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from temporalio.client import Client
from temporalio.converter import DataConverter
from temporalio.plugin import SimplePlugin
from temporalio.worker import Worker, WorkerConfig, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from .activities.providers.registry import warm_up
from .client.connection import forgets_soon, known_search_attributes
from .client.converters import beside, reads_ours
from .client.inputs import JobTask, job_input
from .client.locations import data_folder
from .client.storage.base import Storage
from .client.storage.driver import PayloadDriver
from .client.storage.setting import open_storage
from .core.failures import UsageError
from .core.ids import cuid_from, is_job_id
from .core.models import DEFAULT_PROVIDER
from .core.run import RUNTIME_LEVEL, RunInput
from .definitions.environment import read_env
from .definitions.hosts import allowed_endpoints
from .definitions.load import load_config, load_text
from .definitions.lockfile import lock_for
from .definitions.resolve import NO_OVERRIDES, Overrides, resolve_job
from .worker import Station, forgetting
from .workflows.expert_run import ExpertRun

NAME = "perstack.PerstackPlugin"
_PASSED_THROUGH = "perstack"
"""The whole package: workflow code of others may stand in a file that imports the plugin, too."""


class PerstackPlugin(SimplePlugin):
    """Adds experts to your own Temporal client, worker and replayer.

    Give it to the client; the workers made with that client have it then:

        client = await Client.connect("localhost:7233", plugins=[PerstackPlugin()])
        async with Worker(client, task_queue="mine", workflows=[Mine], activities=[mine]):
            ...

    On the client it sets how our payloads are written, beside your own converter; your codec, failure converter and
    external storage stay. On the worker it adds the workflow `ExpertRun` and its activities, passes the package
    `perstack` through the sandbox, and takes model and tool calls on a queue of its own while the worker runs. On a
    `Replayer` it adds what replaying runs and their callers needs.

    When the worker is shut down, model and tool calls in flight get its `graceful_shutdown_timeout`, but not more than
    its `plugin_shutdown_timeout`; then the runs go on on other workers of the queue.

    Args:
        storage: Where payloads over 64 KiB lie; the storage of this environment by default (`PERSTACK_STORAGE`).
        env: What skills and providers may read, credentials included; the environment of this process by default.

    Raises:
        UsageError: `PERSTACK_STORAGE` names no storage.
    """

    def __init__(self, *, storage: Storage | None = None, env: Mapping[str, str] | None = None) -> None:
        self.storage = storage or open_storage(data_folder())
        self._env = dict(os.environ if env is None else env)
        self._stations: list[Station] = []
        """Of workers that are made and do not run yet."""
        super().__init__(  # pyright: ignore[reportUnknownMemberType]
            NAME,
            data_converter=self._beside,
            workflows=[ExpertRun],
            workflow_runner=_passing_through,
        )

    async def run_input(
        self,
        client: Client,
        expert_key: str,
        query: str = "",
        *,
        config: str | None = None,
        text: str | None = None,
        workspace: str | Path | None = None,
        job_id: str | None = None,
        overrides: Overrides = NO_OVERRIDES,
        is_frozen: bool = False,
    ) -> RunInput:
        """The input of `ExpertRun`, as `perstack run` makes it.

        It reads files and asks the server, so it is called outside of workflows: where a workflow is started that
        takes it as an argument, or in an activity.

        Args:
            client: Of the server on which the expert will run.
            expert_key: The expert.
            query: The task; `run_expert` may set another one.
            config: Path or https URL of the definition; by default the nearest `perstack.toml` above the workspace.
            text: The definition itself, in place of a file.
            workspace: Folder the experts work in, the current one by default; every worker needs it at this path.
            job_id: Id of the job; a new one by default.
            overrides: Provider, model, limits and env files in place of the definition's.
            is_frozen: Refuse a definition that differs from its `perstack.lock`.

        Raises:
            UsageError: The expert, the job id, an override or an env file is wrong or missing.
            DefinitionError: The definition is invalid.
            StorageError: The storage cannot be used.
        """
        if job_id is not None and not is_job_id(job_id):
            raise UsageError(f"Invalid job id: {job_id}", hint="Up to 128 letters, digits, `_` and `-`.")
        folder = Path(os.path.abspath(workspace or os.curdir))
        allowed = allowed_endpoints(self._env)
        if text is None:
            loaded = await asyncio.to_thread(load_config, config, cwd=folder, expert_key=expert_key, allowed=allowed)
        else:
            loaded = load_text(text, source="the given text", allowed=allowed)
        job = resolve_job(loaded, expert_key, overrides, host_env=self._env, cwd=folder, runtime_version=RUNTIME_LEVEL)
        own = {key: expert for key, expert in job.experts.items() if key in loaded.own_experts}
        task = JobTask(
            job_id=job_id or cuid_from(uuid.uuid4().hex),
            query=query,
            workspace=folder,
            storage_id=await asyncio.to_thread(lambda: self.storage.storage_id),
            search_attributes=await known_search_attributes(client),
            is_archiving=await forgets_soon(client),
            locked_tools=lock_for(loaded.directory, own, is_frozen=is_frozen).tools,
        )
        experts = job.experts
        if job.provider == "ollama":
            from .activities.providers.ollama_models import with_context_windows

            experts = await with_context_windows(experts, job.provider_setting, read_env(job.env_paths, self._env))
        return job_input(job, task, experts=experts)

    def configure_worker(self, config: WorkerConfig) -> WorkerConfig:
        """Add our workflow, our activities and what they need."""
        config = super().configure_worker(config)
        # The SDK's type leaves open what activities return.
        given = cast(dict[str, Any], config)
        client = _without_plugins(given["client"])
        if not reads_ours(client.data_converter):
            raise UsageError(
                "PerstackPlugin is on the worker, but not on its client, which could not read our payloads.",
                hint="Give it to the client instead: Client.connect(…, plugins=[PerstackPlugin()]).",
            )
        station = Station(client, given["task_queue"], storage=self.storage, has_own_queue=True, host_env=self._env)
        self._stations.append(station)
        given["activities"] = [*given["activities"], *station.activities]
        given["interceptors"] = [*(given.get("interceptors") or ()), *station.interceptors]
        return config

    async def run_worker(self, worker: Worker, next: Callable[[Worker], Awaitable[None]]) -> None:
        """Serve our own queue as long as the worker runs."""
        given = cast(dict[str, Any], worker.config(active_config=True))
        station = self._station_with(given["activities"])
        station.sessions.let_go = forgetting(worker)
        warm_up(DEFAULT_PROVIDER)
        async with station.open(), station.serving_own_queue(given["graceful_shutdown_timeout"]):
            await super().run_worker(worker, next)

    def _station_with(self, activities: Sequence[Any]) -> Station:
        station = next(one for one in self._stations if one.activities[0] in activities)
        self._stations.remove(station)
        return station

    def _beside(self, theirs: DataConverter | None) -> DataConverter:
        return beside(theirs, PayloadDriver(self.storage))


def _passing_through(theirs: WorkflowRunner | None) -> WorkflowRunner:
    runner = theirs or SandboxedWorkflowRunner()
    if not isinstance(runner, SandboxedWorkflowRunner):
        return runner
    return dataclasses.replace(runner, restrictions=runner.restrictions.with_passthrough_modules(_PASSED_THROUGH))


def _without_plugins(client: Client) -> Client:
    """The same client for workers of our own, on which nobody's plugin has to be mounted again."""
    config = client.config(active_config=True)
    config["plugins"] = []
    return Client(**config)
