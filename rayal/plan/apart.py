"""A function in a fresh process, so that what it takes is what a run's own process will take.

The process gets this one's environment and module paths, says when it is there, and answers once.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rayal.errors import RayalError
from rayal.models.explain import cause_of

_ENTRY = "import sys; from rayal.plan.apart import serve; serve(*sys.argv[1:])"
_PATIENCE_S = 540.0


def apart(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Gives what a module-level function gives in a process of its own, and the seconds from its
    answer to the end of that process: to put away what it imported takes its time.

    Raises:
        RayalError: the function raised it, or something else, with its first line; or the process
            died or took too long; or an argument cannot travel to it.
    """
    try:
        call = pickle.dumps((function, arguments))
    except Exception as error:  # a class of the user's may raise anything
        raise RayalError(
            f"a part of this run cannot be taken to the process of the plan's trial "
            f"({cause_of(error)}); let it make what cannot be pickled when it is first needed, or "
            "run without a plan"
        ) from error
    with tempfile.TemporaryDirectory(prefix="rayal-plan-") as name:
        folder = Path(name)
        (folder / "call.pkl").write_bytes(call)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path),
        }
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", _ENTRY, name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )
            try:
                code = process.wait(_PATIENCE_S)
                ended = time.time()
            except subprocess.TimeoutExpired:
                raise RayalError(
                    f"the plan's trial did not end within {_PATIENCE_S:.0f} s; plan with fewer "
                    "rows a batch (predictor.batch_rows), or start without a plan: plan=off"
                ) from None
            finally:
                process.kill()
                process.wait()
        answer = folder / "answer.pkl"
        if not answer.exists():
            said = (folder / "log").read_text(errors="replace").strip().splitlines()
            raise RayalError(
                f"the plan's trial ended with exit code {code}{' (killed)' if code == -9 else ''}: "
                f"{said[-1] if said else 'it said nothing'}; start without a plan: plan=off"
            )
        found = pickle.loads(answer.read_bytes())
        exit_s = max(0.0, ended - answer.stat().st_mtime)
    if isinstance(found, Exception):
        raise found
    return found, exit_s


def serve(folder_name: str) -> None:
    """Runs the call that lies in a folder, and leaves the answer there."""
    folder = Path(folder_name)
    function, arguments = pickle.loads((folder / "call.pkl").read_bytes())
    try:
        found: Any = function(*arguments)
    except RayalError as error:
        found = error
    except Exception as error:
        found = RayalError(f"the plan's trial failed: {cause_of(error)}")
    temporary = folder / ".tmp-answer"
    temporary.write_bytes(pickle.dumps(found))
    temporary.rename(folder / "answer.pkl")
