"""Ranks that train together on this machine: one process alone, or several beside it.

Ranks are fresh interpreters that meet over a file in a private folder and talk over the loopback
interface; they see a short list of the environment's names, so that no vendor's key reaches them.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from rayal.errors import ConfigError, RayalError, TrainingError
from rayal.models.explain import cause_of

_ENTRY = "import sys; from rayal.trainers.group import rank_main; rank_main(*sys.argv[1:])"
_PASSED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "TEMP", "SYSTEMROOT", "LD_LIBRARY_PATH")
_PASSED_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "NCCL_", "TORCH_", "PYTORCH_", "PYTHONHASHSEED")
_POLL_S = 0.05


@dataclass(frozen=True)
class Rank:
    """One of the processes that train together."""

    rank: int
    size: int
    device: str = "cpu"


@dataclass(frozen=True)
class Alone:
    """A group of this process alone."""

    device: str = "cpu"
    rank: int = 0
    size: int = 1


def run_group(
    num_workers: int,
    function: Callable[..., Any],
    *args: Any,
    use_gpu: bool = False,
    num_threads: int = 1,
    timeout_s: float = 3600.0,
) -> Any:
    """Gives what rank 0 gave of `function(*args, group)`, run by `num_workers` new processes.

    Function, arguments and answer are pickled, so the function and its classes belong to modules
    that can be imported. Starting takes a few seconds, for Python and torch.

    Raises:
        TrainingError: a rank failed or died, or the group did not end in time; no rank is left
            behind.
        ConfigError: there are fewer GPUs than ranks that want one each.
        RayalError: what a rank raised.
    """
    if num_workers < 1:
        raise TrainingError(
            f"a group of {num_workers} processes was asked for, expected 1 or more; with "
            "trainer.num_workers=0 train in this process (Alone)"
        )
    num_gpus = torch.cuda.device_count() if use_gpu else 0
    if use_gpu and num_gpus < num_workers:
        raise ConfigError(
            f"trainer.use_gpu is true and trainer.num_workers is {num_workers}, but this machine "
            f"has {num_gpus} GPUs that torch can use, expected one a worker; lower num_workers, or "
            "set trainer.use_gpu=false"
        )
    with tempfile.TemporaryDirectory(prefix="rayal-group-") as name:
        folder = Path(name)  # readable by this user alone
        backend = "nccl" if use_gpu else "gloo"
        call = (function, args, num_workers, backend, num_threads, timeout_s)
        (folder / "call.pkl").write_bytes(pickle.dumps(call))
        ranks: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(num_workers):
                with open(folder / f"rank-{rank}.log", "wb") as log:
                    ranks.append(_start(folder, rank, log, num_threads))
            _wait(folder, ranks, timeout_s)
        finally:
            for process in ranks:
                process.kill()
                process.communicate()
        return _read(folder, 0)[1]


def _start(folder: Path, rank: int, log: Any, num_threads: int) -> subprocess.Popen[bytes]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED or name.startswith(_PASSED_PREFIXES)
    }
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = str(num_threads)
    environment["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    command = [sys.executable, "-P", "-c", _ENTRY, str(folder), str(rank)]
    # The pipe to stdin is never written: it closes when this process dies, and the rank ends.
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment
    )


def _wait(folder: Path, ranks: list[subprocess.Popen[bytes]], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        codes = [process.poll() for process in ranks]  # before the answers: a dead rank writes none
        answers = [_read(folder, rank) for rank in range(len(ranks))]
        if any(answer is not None and answer[0] == "failed" for answer in answers):
            # It may have failed of the death of another, who is dead by now.
            codes = [process.poll() for process in ranks]
        for answer in answers:
            if answer is not None and answer[0] == "error":
                raise answer[1]
        for rank, code in enumerate(codes):
            if code is not None and answers[rank] is None:
                raise TrainingError(
                    f"rank {rank} of {len(ranks)} ended with exit code {code}{_reason(code)}; "
                    f"its last line: {_last_line(folder, rank)}"
                )
        for rank, answer in enumerate(answers):
            if answer is not None and answer[0] == "failed":
                raise TrainingError(f"rank {rank} of {len(ranks)} failed with {answer[1]}")
        if None not in answers:
            return
        if time.monotonic() > deadline:
            late = ", ".join(str(rank) for rank, found in enumerate(answers) if found is None)
            raise TrainingError(
                f"rank {late} of {len(ranks)} did not end within {timeout_s:g} s; its last line: "
                f"{_last_line(folder, int(late.split(',')[0]))}; allow more time, or train less"
            )
        time.sleep(_POLL_S)


def _read(folder: Path, rank: int) -> Any:
    path = folder / f"rank-{rank}.pkl"
    return pickle.loads(path.read_bytes()) if path.exists() else None


def _reason(code: int) -> str:
    return " (killed; out of memory, perhaps: train fewer workers at once)" if code == -9 else ""


def _last_line(folder: Path, rank: int) -> str:
    text = (folder / f"rank-{rank}.log").read_text(errors="replace").strip()
    return text.splitlines()[-1] if text else "(none)"


def rank_main(folder_name: str, rank_text: str) -> None:
    """Runs one rank: reads the call, joins the group, leaves the answer in the folder."""
    guard = threading.Thread(target=_end_with_parent, daemon=True)
    guard.start()
    folder, rank = Path(folder_name), int(rank_text)
    try:
        answer: tuple[str, Any] = ("answer", _run_rank(folder, rank))
    except RayalError as error:
        answer = ("error", error)
    except Exception as error:
        answer = ("failed", cause_of(error))
    temporary = folder / f".tmp-{rank}"
    temporary.write_bytes(pickle.dumps(answer))
    temporary.rename(folder / f"rank-{rank}.pkl")
    # The caller ends all ranks when all have answered or one has failed: a rank that leaves by
    # itself breaks the exchanges of the others, who would fail of that, and torch's threads can
    # abort an interpreter that exits.
    guard.join()


def _run_rank(folder: Path, rank: int) -> Any:
    call = pickle.loads((folder / "call.pkl").read_bytes())
    function, args, size, backend, num_threads, timeout_s = call
    torch.set_num_threads(num_threads)
    device = f"cuda:{rank}" if backend == "nccl" else "cpu"
    if backend == "nccl":
        torch.cuda.set_device(device)
    distributed.init_process_group(
        backend,
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=timeout_s),
    )
    return function(*args, Rank(rank, size, device))


def _end_with_parent() -> None:
    os.read(0, 1)  # not sys.stdin: Python aborts at exit while a thread holds its lock
    os._exit(1)
