"""The `rayal` command: finds the door, and turns an error into one line and an exit code."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

import rayal
from rayal.cli.explain import line_of, tell

COMMANDS = {
    "ingest": "turn a source into a pool:         rayal ingest SOURCE POOL_DIR",
    "pool": "rows are forgotten:                rayal pool delete POOL_DIR --ids FILE",
    "embed": "a frozen model's features, once:   rayal embed checkpoint=DIR features=DIR",
    "plan": "what a run will cost:             rayal plan experiment=digits strategy=margin",
    "run": "run active learning:               rayal run experiment=digits strategy=margin",
    "select": "pick rows without the loop:        rayal select --outputs 'x/*.parquet' --out FILE",
    "status": "how a run stands:                  rayal status RUN_DIR [--json] [--digest]",
    "orders": "what went out, what is in doubt:   rayal orders RUN_DIR [--assume-sent KEY]",
    "label": "a person labels, in a page:        rayal label RUN_DIR [--terminal]",
    "labels": "answers in a file; disputes:       rayal labels ingest|disputed|settle RUN_DIR FILE",
    "audit": "what left; is the record whole:    rayal audit verify|sent RUN_DIR",
    "erase": "samples are forgotten, with proof:  rayal erase RUN_DIR --sample-id ID",
    "vendor": "does an adapter keep the contract: rayal vendor check CONFIG.yaml",
    "export": "the labels bought, as Parquet:     rayal export RUN_DIR --out labels.parquet",
    "report": "write RUN_DIR/report.html anew:    rayal report RUN_DIR",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; gives the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if any(word in ("-sc", "--shell-completion") for word in words[:2]):
        asked = [word.split("=", 1)[1] for word in words if word.startswith("query=")]
        if asked:
            from rayal.cli import completion

            return completion.answer(asked[0], COMMANDS)
        words = ["run", *(word for word in words if word != "run")]  # a shell asks the program
    command = words[0] if words else "--help"
    if command in ("-h", "--help"):
        print(_usage())
        return 0
    if command == "--version":
        print(rayal.__version__)
        return 0
    if command not in COMMANDS:
        close = difflib.get_close_matches(command, COMMANDS, n=1)
        meant = f"; did you mean {close[0]}?" if close else ""
        tell(f"there is no command '{command}'{meant} (there are: {', '.join(COMMANDS)})")
        return 2
    door = importlib.import_module(f"rayal.cli.{command}")
    try:
        with _terminable():
            return int(door.main(words[1:]))
    except SystemExit as end:  # --help, and a word that a command does not take
        if not isinstance(end.code, int | None):
            raise
        return end.code or 0
    except BrokenPipeError:
        return 1
    except _Terminated:
        print("terminated; the same command again goes on where it stood", file=sys.stderr)
        return 128 + signal.SIGTERM
    except KeyboardInterrupt:
        print("interrupted; the same command again goes on where it stood", file=sys.stderr)
        return 130
    except Exception as error:
        line = line_of(error)
        if line is None:
            raise
        return tell(line)


class _Terminated(BaseException):
    """SIGTERM came, as Kubernetes and systemd send it. Not an Exception: nothing may catch it."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Lets SIGTERM end what runs as an interrupt does: Ray and its workers are put away."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _usage() -> str:
    lines = [f"  {name:8} {text}" for name, text in COMMANDS.items()]
    return "usage: rayal COMMAND ...\n\n" + "\n".join(lines) + "\n\nrayal COMMAND --help says more"


if __name__ == "__main__":
    sys.exit(main())
