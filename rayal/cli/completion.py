"""What a shell's tab key is answered: commands here, words of `rayal run` and `select` by Hydra.

Hydra's own script asks for words after a program; here a command stands between the two.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

_FLAGS = (
    "--cfg", "--config-dir", "--config-name", "--config-path", "--help", "--info", "--multirun",
    "--package", "--resolve",
)  # fmt: skip
_BEFORE_A_WORD = (
    "-c", "-cd", "-cn", "-cp", "-p",
    "--cfg", "--config-dir", "--config-name", "--config-path", "--package",
)  # fmt: skip
_OF_PLAN = ("--config-dir", "--help", "--json")
_OF_SELECT = ("--outputs", "--labelled", "--out", "--work", "--config-dir", "--cfg", "--help")


def answer(shell: str, commands: Collection[str]) -> int:
    """Prints what the line in COMP_LINE may go on with; gives the exit code."""
    words, last = _line()
    offers: list[str] = []
    if not words:
        offers = [name for name in commands if name.startswith(last)]
    elif words[0] == "run" and last.startswith("-"):
        offers = [flag for flag in _FLAGS if flag.startswith(last)]
    elif words[0] == "run" and words[-1] not in _BEFORE_A_WORD:
        _ask_hydra(shell, words[1:], last)
    elif words[0] == "plan" and last.startswith("-"):
        offers = [flag for flag in _OF_PLAN if flag.startswith(last)]
    elif words[0] == "plan" and words[-1] not in _BEFORE_A_WORD:
        _ask_hydra(shell, _overrides(words[1:], _OF_PLAN), last)
    elif words[0] == "select" and last.startswith("-"):
        offers = [flag for flag in _OF_SELECT if flag.startswith(last)]
    elif words[0] == "select" and words[-1] not in _OF_SELECT:
        _ask_hydra(shell, ["--config-name", "select", *_overrides(words[1:])], last)
    if offers:
        print("\n".join(offers))
    return 0  # nothing: the shell offers files


def _line() -> tuple[list[str], str]:
    """Gives the whole words after the program, and the one that is being written."""
    line, point = os.environ.get("COMP_LINE", ""), os.environ.get("COMP_POINT", "")
    line = line[: int(point)] if point.isdigit() else line
    try:
        words = shlex.split(line)
    except ValueError:  # a quote that is still open
        words = line.split()
    last = words.pop() if words and not line[-1].isspace() else ""
    is_python = bool(words) and Path(words[0]).name.startswith("python")
    return words[2 if is_python else 1 :], last


def _overrides(words: Sequence[str], flags: Collection[str] = _OF_SELECT) -> list[str]:
    """Gives the words that Hydra knows, overrides and where some are found, of a command that has
    `flags` of its own."""
    found: list[str] = []
    for before, word in itertools.pairwise(["", *words]):
        if before == "--config-dir":
            found += [before, word]
        elif (before not in flags or before == "--json") and word not in flags:
            found.append(word)
    return found


def _ask_hydra(shell: str, words: Sequence[str], last: str) -> None:
    from rayal.cli.run import flags_of, main, read_words

    # A line that is still being written is no error, whatever is wrong with it: nothing is said.
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(Exception, SystemExit):
        given = read_words(words)
        known = [word for word in given.overrides if not set(word) & set(" \t\n")]
        os.environ["COMP_LINE"] = " ".join(["rayal", *known, last])
        given.multirun = given.cfg = given.info = None
        main([*flags_of(given), "--shell-completion", f"query={shell}"])
