"""Records the demo anew: the real `perstack run` against a scripted Messages server, then `perstack log --cassette`.

For developers only, after a change of the built-in expert or of what the model is offered:
`.venv/bin/python -P examples/create-expert/record.py`. It borrows the scripted server of the tests.
"""

import asyncio
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
DEFINITION = REPOSITORY / "definitions/create-expert/perstack.toml"
CASSETTE = HERE / "demo.cassette.json"
PERSTACK = [sys.executable, "-P", "-m", "perstack"]
RECORDED_WORKSPACE = b"/workspace"
CHARACTERS_PER_TOKEN = 3.6
UNCACHED_TOKENS = 4


def load(path: Path) -> ModuleType:
    """A Python file that lies outside any package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


answers: Any = load(HERE / "answers.py")
sys.path.insert(0, str(REPOSITORY / "tests"))
model_server: Any = importlib.import_module("support.model_server")


class Model:
    """Answers as `answers.py` says; each run of an expert takes its next conversation."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()
        self._prompts: dict[str, tuple[str, int]] = {}

    def __call__(self, request: Any) -> Any:
        opening = next(
            (text for text in answers.CONVERSATIONS if f"---\n\n{text}" in request.system),
            None,
        )
        assert opening is not None, f"an expert nobody knows: {request.system[-200:]!r}"
        self._begun[opening] += request.turn == 1
        turn = answers.CONVERSATIONS[opening][self._begun[opening] - 1][request.turn - 1]
        # Named here, so that recording again changes nothing but what has changed.
        place = f"{list(answers.CONVERSATIONS).index(opening)}_{self._begun[opening]}_{request.turn}"
        calls = tuple(
            model_server.Call(name=call.name, args=call.args, id=f"toolu_{place}_{index}")
            for index, call in enumerate(turn.calls)
        )
        usage = self._usage(request, turn)
        return model_server.Answer(text=turn.text, thinking=turn.thinking, calls=calls, usage=usage)

    def _usage(self, request: Any, turn: Any) -> dict[str, int]:
        """Tokens as the real API counts them: what was sent before is cached unless the tools have changed."""
        tools = json.dumps(request.json.get("tools", []))
        prompt = _tokens(tools, request.system, *map(json.dumps, request.messages))
        known_tools, known = self._prompts.get(request.fingerprint, ("", 0))
        cached = known if known_tools == tools else 0
        self._prompts[request.fingerprint] = (tools, prompt)
        return {
            "input_tokens": UNCACHED_TOKENS,
            "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": prompt - cached - UNCACHED_TOKENS,
            "output_tokens": _tokens(turn.thinking, turn.text, *(json.dumps(call.args) for call in turn.calls)),
        }


def _tokens(*texts: str) -> int:
    return max(1, round(sum(map(len, texts)) / CHARACTERS_PER_TOKEN))


async def record() -> int:
    """Run the job, keep its recording."""
    with tempfile.TemporaryDirectory(prefix="perstack-record-") as folder:
        async with model_server.ModelServer(Model()) as server:
            code, said = await run_job(folder, server.url)
    found = re.search(r"job ([a-z0-9]+) ", said)
    if code or found is None:
        return code or 1
    log = await asyncio.create_subprocess_exec(
        *PERSTACK, "log", "--job", found[1], "--cassette", stdout=subprocess.PIPE
    )
    content, _ = await log.communicate()
    if log.returncode == 0:
        CASSETTE.write_bytes(content.replace(folder.encode(), RECORDED_WORKSPACE))
    return log.returncode or 0


async def run_job(folder: str, url: str) -> tuple[int, str]:
    """The job in an empty workspace; its exit code and what it said."""
    environment = {**os.environ, "ANTHROPIC_API_KEY": "sk-ant-recording", "ANTHROPIC_BASE_URL": url}
    process = await asyncio.create_subprocess_exec(
        *PERSTACK,
        *("run", "create-expert", answers.QUERY, "--config", str(DEFINITION), "--filter", "completeRun"),
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    _, said = await process.communicate()
    sys.stderr.buffer.write(said)
    return process.returncode or 0, said.decode()


if __name__ == "__main__":
    sys.exit(asyncio.run(record()))
