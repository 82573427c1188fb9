"""Commands as a user gives them, in this process, and what they say."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from rayal.cli.main import main
from rayal.pool import Pool


@dataclass(frozen=True)
class Said:
    """How one command ended."""

    code: int
    out: str
    err: str

    def refused(self, *parts: str, code: int = 1) -> str:
        """Gives the error's line, and checks that it is the only one, the last, and has `parts`."""
        assert self.code == code, f"exit code {self.code}: {self.out}{self.err}"
        assert "Traceback" not in self.err
        lines = self.err.splitlines()
        errors = [line for line in lines if "error:" in line.lower()]
        assert errors == lines[-1:], self.err
        assert errors[0].startswith("error: "), self.err
        assert "HYDRA_FULL_ERROR" not in self.err
        for part in parts:
            assert part in errors[0], f"no '{part}' in: {errors[0]}"
        return errors[0]

    def done(self) -> Said:
        """Checks that the command succeeded."""
        assert self.code == 0, self.out + self.err
        assert "error:" not in self.err
        return self


@dataclass
class Doors:
    """The `rayal` command in a folder of its own."""

    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    folder: Path

    def __post_init__(self) -> None:
        self.monkeypatch.chdir(self.folder)
        self.monkeypatch.setattr(sys, "argv", ["rayal"])
        self.monkeypatch.setattr(sys, "path", [*sys.path])

    def __call__(self, *words: object) -> Said:
        """Gives one command."""
        self.capsys.readouterr()
        code = main([str(word) for word in words])
        return Said(code, *self.capsys.readouterr())

    def run(self, pool: Pool | Path | str, run_dir: Path | str, *more: object) -> Said:
        """Gives `rayal run` over a small pool, in small steps."""
        return self("run", *small(pool, run_dir), *more)

    def digest(self, run_dir: Path | str) -> str:
        """Gives the digest of a run."""
        return self("status", run_dir, "--digest").done().out.strip()

    def module(self, name: str, text: str, folder: Path | None = None) -> Path:
        """Writes a module of the user's into the current folder, forgotten after the test."""
        path = (folder or self.folder) / f"{name}.py"
        path.write_text(text)
        self.monkeypatch.delitem(sys.modules, name, raising=False)
        return path


def small(pool: Pool | Path | str, run_dir: Path | str, *more: object) -> list[str]:
    """Gives the words of a run of two short rounds."""
    path = pool.path if isinstance(pool, Pool) else pool
    return [
        "experiment=embeddings", f"pool.path={path}", "model=linear", "num_rounds=2", "budget=20",
        "trainer.epochs=1", "trainer.min_steps=10", "predictor.batch_rows=64",
        f"run_dir={run_dir}", *map(str, more),
    ]  # fmt: skip


def contents(folder: Path) -> dict[str, str]:
    """Gives a hash of every file below a folder, by name; SQLite's side files are left out."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


def failing(
    number: int, function: Callable[..., object], error: Exception
) -> Callable[..., object]:
    """Gives a function that raises at its call of this number (from 0), once."""
    calls = iter(range(1_000_000))

    def called(*args: object, **kwargs: object) -> object:
        if next(calls) == number:
            raise error
        return function(*args, **kwargs)

    return called
