"""Leases the embedded server, prints its address, and keeps the lease until it is killed."""

import asyncio
import sys

from perstack.client.embedded import lease_server


async def main() -> None:
    """Hold the lease."""
    lease = await lease_server(address=None, progress=lambda message: None)
    sys.stdout.write(f"{lease.info.address}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
