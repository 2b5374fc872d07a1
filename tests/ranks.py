"""Functions that run on several processes at once, for tests: real processes, torchrun's environment, gloo."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

PROLOGUE = """
import os, sys
sys.path.insert(0, {tests!r})
from {module} import {function} as go
go(*{arguments!r})
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)  # as the command leaves: a thread that still exchanges can abort the interpreter's own ending
"""


def on_ranks(function: Any, size: int, *arguments: Any) -> list[str]:
    """Run a test module's function on `size` processes and return what each printed; all must exit with 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = PROLOGUE.format(
        tests=str(Path(__file__).parent), module=function.__module__, function=function.__name__, arguments=arguments
    )
    processes = []
    for rank in range(size):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **{key: str(value) for key, value in place.items()}}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", code], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        )
    ended = [(*process.communicate(timeout=300), process.returncode) for process in processes]
    assert [0] * size == [code for _, _, code in ended], "\n".join(errors for _, errors, _ in ended)
    return [out for out, _, _ in ended]


def last_json(printed: str) -> Any:
    return json.loads(printed.splitlines()[-1])
