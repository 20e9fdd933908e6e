"""Lets the Temporal SDK fetch its development server: `python -m perstack.client.download <folder>`.

A process of its own, because the SDK's download can neither be cancelled nor bounded.
"""

import asyncio
import os
import sys
from datetime import timedelta

from temporalio.testing import WorkflowEnvironment


async def download(folder: str) -> None:
    """Fetch the program into `folder`; the SDK insists on starting it once, in memory."""
    environment = await WorkflowEnvironment.start_local(  # pyright: ignore[reportUnknownMemberType]
        download_dest_dir=folder,
        dev_server_log_level="error",
        dev_server_startup_timeout=timedelta(seconds=60),
    )
    await environment.shutdown()


if __name__ == "__main__":
    asyncio.run(download(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
