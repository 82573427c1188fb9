"""rayal label: a person labels what a run has ordered, in a page of this machine or in a terminal.

The run has labeler=terminal (or file_drop). It may be polling (poll_s=5), or have ended: then the
same `rayal run` again takes the labels. Keys are on the page; u takes back, s skips.
"""

from __future__ import annotations

import getpass
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rayal.cli.opening import open_run
from rayal.cli.words import Parser
from rayal.errors import ConfigError, LabelError
from rayal.rundir import RunDir

_LABELER = "rayal.labelers.file_drop.FileDrop"


def main(arguments: Sequence[str]) -> int:
    """Opens the desk until it is interrupted, or in a terminal all is answered; gives the exit
    code."""
    parser = Parser(prog="rayal label", description=__doc__)
    parser.add_argument("run_dir")
    parser.add_argument("--terminal", action="store_true", help="here, and not in a browser")
    parser.add_argument("--annotator", help="whose labels these are; else your login name")
    parser.add_argument("--port", type=int, default=0, help="of the page; 0: any that is free")
    parser.add_argument(
        "--pixels",
        action="append",
        default=[],
        metavar="COLUMN=H,W[,3]",
        help="a vector of uint8 is an image of this shape",
    )
    parser.add_argument(
        "--hold-s",
        type=float,
        default=30.0,
        help="seconds that the newest label can be taken back as if it never was",
    )
    parser.add_argument("--ledger-url", help="where the ledger is not in RUN_DIR")
    words = parser.parse_args(arguments)
    from rayal.desk.desk import Desk

    with open_run(words.run_dir, words.ledger_url) as (ledger, run_dir):
        config = ledger.run().config
    outbox, inbox = _boxes(config, run_dir)
    show = _show(config, words.pixels)
    desk = Desk(outbox, inbox, words.annotator or _login(), show, words.hold_s)
    try:
        if words.terminal:
            _in_terminal(desk)
        else:
            _in_a_page(desk, words.port)
    finally:
        desk.close()
        left = sum(open_rows for *_, open_rows in desk.counts())
        print(f"{left} rows are open; `rayal run` again takes what is labelled, if none polls")
    return 0


def _in_terminal(desk: Any) -> None:
    from rayal.desk.terminal import sit

    sit(desk, sys.stdin.readline, lambda line: print(line, flush=True))


def _in_a_page(desk: Any, port: int) -> None:
    from rayal.desk.server import served

    with served(desk, port) as address:
        print(f"{desk.annotator} labels at {address}", flush=True)
        print("the address opens once; Ctrl-C ends, and nothing is lost", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()


def _boxes(config: Mapping[str, Any], run_dir: RunDir) -> tuple[Path, Path]:
    """Gives the outbox and the inbox of a run.

    Raises:
        ConfigError: the run has another labeler, or they are not folders of this machine.
    """
    labeler = config["labeler"]
    if labeler.get("_target_") != _LABELER:
        raise ConfigError(
            f"the labeler of this run is {labeler.get('_target_')}, and a person labels through "
            "files; start a run with labeler=terminal"
        )
    found = []
    for name in ("outbox", "inbox"):
        given = labeler.get(name)
        if (given is None and run_dir.is_copy) or "://" in str(given or "").removeprefix("file://"):
            raise ConfigError(
                f"the {name} of this run is in a store ({given or run_dir}), and `rayal label` "
                f"works on folders of this machine; start a run with labeler.{name}=FOLDER"
            )
        place = str(given).removeprefix("file://") if given else run_dir.path / "labeler" / name
        found.append(Path(place).expanduser().absolute())
    outbox, inbox = found
    if not outbox.is_dir():
        raise LabelError(
            f"there is no outbox at {outbox}; run it first, or give this command where the run was "
            "started: its folder is named from there"
        )
    return outbox, inbox


def _show(config: Mapping[str, Any], given: Sequence[str]) -> Any:
    from rayal.desk.show import Show

    pixels: dict[str, tuple[int, ...]] = {}
    planes: dict[str, tuple[int, ...]] = {}
    roots: dict[str, str | None] = {}
    for node in _nodes(config.get("model")):
        name = str(node["_target_"]).rpartition(".")[2]
        if name == "Fetched":
            roots[str(node.get("uri", "uri"))] = node.get("root")
        elif name == "Pixels":
            column = str(node.get("column", "pixels"))
            shape = (int(node.get("height", 28)), int(node.get("width", 28)))
            channels = int(node.get("channels", 1))
            if channels == 1:
                pixels[column] = shape
            elif channels == 3:
                planes[column] = (3, *shape)
    for text in given:
        column, _, sizes = text.partition("=")
        parts = sizes.split(",")
        numbers = tuple(int(one) for one in parts if one.isascii() and one.isdigit())
        is_shape = len(numbers) == len(parts) and 0 not in numbers
        if not column or not is_shape or not (len(parts) == 2 or numbers[2:] == (3,)):
            raise ConfigError(f"--pixels {text} is no shape; give COLUMN=28,28 or COLUMN=32,32,3")
        pixels[column] = numbers
        planes.pop(column, None)
    return Show(pixels, planes, roots)


def _nodes(tree: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(tree, Mapping):
        if "_target_" in tree:
            yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container without a name for its user
        return "me"
