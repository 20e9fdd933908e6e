"""`perstack dev`: the embedded server in the foreground."""

from typing import NoReturn

from ..diagnostics import ExitCode, progressing, say, waiting
from ..lifecycle import Interruption, run_command


def dev(*, is_stop: bool) -> NoReturn:
    """Keep the server up until Ctrl-C, or end it."""

    async def command() -> ExitCode:
        from ...client.embedded import lease_server, stop_server
        from ...client.locations import data_folder

        if is_stop:
            with waiting("stopping the Temporal server …"):
                was_running = await stop_server(data_folder())
            say("the embedded server has ended" if was_running else "no embedded server was running")
            return ExitCode.COMPLETED
        interruption = Interruption()
        interruption.install()
        with progressing() as waiting_for:
            lease = await lease_server(address=None, progress=waiting_for)
        with lease:
            say(f"Temporal server: {lease.info.address} (namespace {lease.info.namespace})")
            if lease.info.ui_url:
                say(f"Temporal Web UI: {lease.info.ui_url}/namespaces/{lease.info.namespace}/workflows")
            say("Ctrl-C leaves; the server ends by itself when nobody has used it for a while")
            await interruption.requested.wait()
        return ExitCode.COMPLETED

    run_command(command)
