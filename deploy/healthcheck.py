"""`python healthcheck.py QUEUE`: exits 0 when Temporal has heard of a worker of this machine on the queue lately."""

import asyncio
import os
import socket
import sys
from datetime import UTC, datetime, timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.envconfig import ClientConfig

LATELY = timedelta(seconds=90)
"""A poll lasts up to 70 seconds, and Temporal notes when it began."""
PATIENCE_SECONDS = 10


async def is_polling(task_queue: str) -> bool:
    """Whether a worker of this machine polls the queue; its identity ends with the machine's name."""
    client = await Client.connect(**ClientConfig.load_client_connect_config())
    answer = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=task_queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
        )
    )
    since = datetime.now(UTC) - LATELY
    own = f"@{socket.gethostname()}"
    return any(
        poller.identity.endswith(own) and poller.last_access_time.ToDatetime(tzinfo=UTC) > since
        for poller in answer.pollers
    )


async def main() -> int:
    """The exit code."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            if await is_polling(sys.argv[1]):
                return 0
        reason = f"no worker of {socket.gethostname()} polls {sys.argv[1]}"
    except Exception as error:  # whatever it is, Docker shows it
        reason = f"{type(error).__name__}: {error}"
    sys.stderr.write(f"{reason}\n")
    return 1


if __name__ == "__main__":
    code = asyncio.run(main())
    sys.stderr.flush()
    os._exit(code)  # the SDK's native threads can crash an ordinary exit
