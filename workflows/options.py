"""The one table of timeouts, retries, priorities and summaries of everything a run starts."""

import hashlib
from datetime import timedelta
from typing import Any

from temporalio.common import Priority, RetryPolicy, SearchAttributeKey, SearchAttributePair

from ..core.effects import Generate, PlannedCall
from ..core.expert import Expert
from ..core.run import Limits, RunInput

HEARTBEAT_TIMEOUT = timedelta(seconds=3)
"""A worker that is silent this long is lost (DESIGN §3)."""
PRIVATE_QUEUE_WAIT = timedelta(seconds=4)
"""A worker's own queue takes calls at once; one that does not is gone."""
FOREIGN_QUEUE_WAIT = timedelta(seconds=1.5)
"""The same for a call that another worker makes: the run has left the worker with the session (decision 0018)."""
SKILL_START_TIMEOUT = timedelta(seconds=120)
CALL_MARGIN = timedelta(seconds=30)
STORAGE_WAIT = timedelta(hours=24)
"""How long an outage of the storage may keep a finished call from handing in its result (decision 0011)."""
ARCHIVE_WAIT = timedelta(minutes=10)
"""How long a run that is over may wait for the storage to take its history; then it ends without (decision 0013)."""
ARCHIVE_TIMEOUT = ARCHIVE_WAIT + timedelta(minutes=5)
LONGEST_LOCAL_CALL = timedelta(seconds=20)
WORKFLOW_TASK_TIMEOUT = timedelta(seconds=4)
"""A workflow task a dead worker held is given out again this soon."""

NO_RETRY = RetryPolicy(maximum_attempts=1)
OPEN_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=5), maximum_attempts=5
)

ARCHIVE_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30), maximum_attempts=8
)

JOB_ATTRIBUTE = SearchAttributeKey.for_keyword("PerstackJob")
EXPERT_ATTRIBUTE = SearchAttributeKey.for_keyword("PerstackExpert")
STATUS_ATTRIBUTE = SearchAttributeKey.for_keyword("PerstackStatus")
MODEL_ATTRIBUTE = SearchAttributeKey.for_keyword("PerstackModel")
QUERY_ATTRIBUTE = SearchAttributeKey.for_keyword("PerstackQuery")
TAGS_ATTRIBUTE = SearchAttributeKey.for_keyword_list("PerstackTags")
TOKENS_ATTRIBUTE = SearchAttributeKey.for_int("PerstackTokens")
STEPS_ATTRIBUTE = SearchAttributeKey.for_int("PerstackSteps")


WORKSPACE_MEMO = "PerstackWorkspace"
ORIGIN_MEMO = "PerstackOrigin"


def generate_retry(limits: Limits) -> RetryPolicy:
    """Provider failures are Temporal's to repeat; a lost worker is not retried in place."""
    return RetryPolicy(
        initial_interval=timedelta(seconds=1),
        backoff_coefficient=2.0,
        maximum_interval=timedelta(seconds=60),
        maximum_attempts=1 + limits.max_retries,
        non_retryable_error_types=["TemporalTimeout:Heartbeat", "TemporalTimeout:StartToClose", "WorkerShutdown"],
    )


def generate_timeout(limits: Limits) -> timedelta:
    """A backstop: the activity itself ends a model call at the limit."""
    return timedelta(milliseconds=limits.timeout_ms) + CALL_MARGIN + STORAGE_WAIT


def call_timeout(planned: PlannedCall, limits: Limits) -> timedelta:
    """The job's timeout, or longer where the call itself asks for more (exec), and the longest wait for the storage."""
    asked = planned.call.args.get("timeout")
    milliseconds = max(limits.timeout_ms, asked if isinstance(asked, int) else 0)
    return timedelta(milliseconds=milliseconds) + CALL_MARGIN + STORAGE_WAIT


def job_priority(job_id: str) -> Priority:
    """Equal shares of a queue for every job; Temporal takes fairness keys of at most 64 bytes."""
    return Priority(fairness_key=hashlib.sha256(job_id.encode()).hexdigest()[:32])


def start_attributes(start: RunInput) -> list[SearchAttributePair[Any]]:
    """The search attributes a run starts with, as far as the server knows them."""
    pairs: list[SearchAttributePair[Any]] = [
        SearchAttributePair(JOB_ATTRIBUTE, start.job_id),
        SearchAttributePair(EXPERT_ATTRIBUTE, start.expert_key),
        SearchAttributePair(STATUS_ATTRIBUTE, "running"),
        SearchAttributePair(MODEL_ATTRIBUTE, start.expert.model.model),
        SearchAttributePair(QUERY_ATTRIBUTE, first_line(start)),
    ]
    if start.expert.tags:
        pairs.append(SearchAttributePair(TAGS_ATTRIBUTE, list(start.expert.tags)))
    return [pair for pair in pairs if pair.key.name in start.settings.search_attributes]


def run_memo(start: RunInput) -> dict[str, Any]:
    """What a list of workflows can tell of a run without reading it; also where it comes from."""
    memo: dict[str, Any] = {WORKSPACE_MEMO: start.settings.workspace}
    if start.seed is not None:
        memo[ORIGIN_MEMO] = start.seed.origin.model_dump(mode="json")
    return memo


def run_summary(start: RunInput) -> str:
    """What the list of workflows says of a run: expert and first line of its task."""
    return _short(f"{start.expert_key} · {first_line(start)}", 180)


def first_line(start: RunInput) -> str:
    """The first line of a run's task, not too long for a list."""
    return _short((start.query or "").strip().partition("\n")[0], 120)


def generate_summary(effect: Generate, expert: Expert) -> str:
    """What the Temporal UI says of a model call."""
    return f"step {effect.step_number} · {expert.model.model} · generate"


def call_summary(planned: PlannedCall, step: int) -> str:
    """What the Temporal UI says of a tool call: its name and the argument that tells most."""
    args = planned.call.args
    if planned.call.tool_name == "exec":
        words: list[object] = [args.get("command", "")]
        given = args.get("args")
        if isinstance(given, list):
            words.extend(given)  # pyright: ignore[reportUnknownArgumentType]
        detail = " ".join(str(word) for word in words)
    else:
        detail = str(next((args[key] for key in ("path", "configPath", "query", "expertKey") if key in args), ""))
    name = planned.call.tool_name
    return _short(f"step {step} · {name} · {detail}" if detail else f"step {step} · {name}", 120)


def _short(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"
