"""`make demo`: the built-in create-expert team, from a recording, on a real Temporal server.

Events are JSON Lines on stdout, everything else is on stderr. Options of `perstack run` may follow the file's name.
"""

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
CASSETTE = Path(__file__).resolve().with_name("demo.cassette.json")
# Named, because a perstack.toml in a folder above the workspace would be found otherwise.
DEFINITION = REPOSITORY / "definitions/create-expert/perstack.toml"
RUNTIME_FOLDER = "perstack"


def main(options: list[str]) -> int:
    """Replay the job in a new workspace, then tell what it left there."""
    workspace = Path(tempfile.mkdtemp(prefix="perstack-demo-"))
    query = json.loads(CASSETTE.read_bytes())["query"]
    say(f'demo: perstack run create-expert "{query}"')
    command = [sys.executable, "-P", "-m", "perstack", "run", "create-expert", query]
    command += ["--config", str(DEFINITION), "--replay", str(CASSETTE), *options]
    with subprocess.Popen(command, cwd=workspace) as process:
        # Ctrl-C reaches the command as well, which parks the run; what it says then should be seen.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        code = process.wait()
    say(f"demo: the workspace is {workspace}")
    for path in sorted(path for path in workspace.rglob("*") if path.is_file()):
        name = path.relative_to(workspace)
        if name.parts[0] != RUNTIME_FOLDER:
            say(f"  {name}  {path.stat().st_size} bytes")
    return code


def say(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
