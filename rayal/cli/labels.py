"""rayal labels: answers that came in a file, and samples that somebody has to decide on.

rayal labels ingest RUN_DIR FILE     answers that came by mail, for instance
rayal labels disputed RUN_DIR FILE   writes the samples whose label is not sure
rayal labels settle RUN_DIR FILE     what somebody decided of them: the next snapshot has it
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from rayal.cli.config import build
from rayal.cli.opening import labeler_of, open_run
from rayal.cli.words import Parser
from rayal.consensus import Consensus
from rayal.errors import LabelError
from rayal.history import History
from rayal.labelers.answers import Answer, AnswerReader, Asked, lines_of
from rayal.ledger import Ledger
from rayal.ordering import Orders
from rayal.rundir import RunDir, sample_ids
from rayal.settling import Disputes
from rayal.storage import atomic_path
from rayal.types import Vocabulary

_MOST_PROBLEMS = 5
_SUFFIXES = (".parquet", ".jsonl", ".csv")


def main(arguments: Sequence[str]) -> int:
    """Takes the answers of a file, or writes what is disputed; gives the exit code."""
    parser = Parser(prog="rayal labels", description=__doc__)
    parser.add_argument(
        "what",
        choices=("ingest", "disputed", "settle"),
        help="take the answers of a file; write samples whose label is not sure; take what "
        "somebody decided of them",
    )
    parser.add_argument("run_dir")
    parser.add_argument(
        "file", help="Parquet, CSV or JSONL: sample_id or source_id, label; as `file_drop` reads"
    )
    parser.add_argument(
        "--annotator", default="", help="whose answers these are, if no column says"
    )
    parser.add_argument(
        "--below", type=float, default=0.8, help="disputed: labels less probable than this"
    )
    parser.add_argument("--most", type=int, help="disputed: so many, the least sure")
    parser.add_argument("--ledger-url", help="where the ledger is not in RUN_DIR")
    words = parser.parse_args(arguments)
    place = Path(words.file).expanduser()
    if words.what == "disputed":
        return _disputed(words, place)
    if place.suffix not in _SUFFIXES or not place.is_file():
        raise LabelError(
            f"{words.file} is not there, or is none of {', '.join(_SUFFIXES)}; save a spreadsheet "
            "as CSV (UTF-8)"
        )
    with open_run(words.run_dir, words.ledger_url, writer=True) as (ledger, run_dir):
        if words.what == "settle":
            num_new, num_read = _settle(ledger, run_dir, place, words.annotator)
            print(f"{place}: {num_read} samples are decided, {num_new} of them anew")
            return 0
        num_new, num_read, num_odd = _ingest(ledger, run_dir, place, words.annotator)
    print(f"{place}: {num_read} answers, {num_new} of them new")
    if num_odd:
        print(f"{num_odd} of them were not taken; see rayal orders {words.run_dir} --quarantine")
    return 0


def _disputed(words: Any, place: Path) -> int:
    if place.suffix not in (".csv", ".parquet"):
        raise LabelError(f"{place} is to be written as .csv or .parquet; name it so")
    if not 0 < words.below <= 1 or (words.most is not None and words.most < 1):
        raise LabelError(
            f"--below is {words.below:g} and --most {words.most}; give a probability above 0, and "
            "a number of samples"
        )
    with open_run(words.run_dir, words.ledger_url) as (ledger, run_dir):
        table = Disputes(ledger, _history(ledger, run_dir)).table(words.below, words.most)
    with atomic_path(place) as temporary:
        if place.suffix == ".csv":
            csv.write_csv(table, temporary)
        else:
            pq.write_table(table, temporary)
    print(
        f"{place}: {table.num_rows} samples; fill in the column label and give it back with "
        f"rayal labels settle {words.run_dir} {place}"
    )
    return 0


def _settle(ledger: Ledger, run_dir: RunDir, place: Path, annotator: str) -> tuple[int, int]:
    """Gives how many decisions are new, and were read. An empty label decides nothing."""
    history = _history(ledger, run_dir)
    placed = [event.round for event in ledger.events(step="ordered") if event.round >= 0]
    ids = {int(i) for t in placed for i in history.ids_of(t)}
    by_source: dict[str, int] = {}
    for t in placed:
        rows = history.dir.read(history.record(t, "selected"))
        if "source_id" in rows.schema.names:
            names = rows.column("source_id").to_pylist()
            by_source |= zip(map(_source, names), sample_ids(rows).tolist(), strict=True)
    reader = AnswerReader(history.vocabulary, 0, "USD")
    answers = _whole(*_read(reader, place, Asked(frozenset(ids), by_source), annotator))
    labels: dict[int, Any] = {}
    for one in answers:
        event = one.event
        if labels.setdefault(event.sample_id, event.value) != event.value:
            raise LabelError(
                f"{one.where}: sample_id {event.sample_id} is decided twice, as "
                f"{labels[event.sample_id]!r} and {event.value!r}; keep one. Nothing was taken"
            )
    labels = {sample_id: label for sample_id, label in labels.items() if label is not None}
    by = annotator or next((one.event.annotator for one in answers if one.event.annotator), "")
    return Disputes(ledger, history).settle(labels, by), len(labels)


def _history(ledger: Ledger, run_dir: RunDir) -> History:
    config = ledger.run().config
    vocabulary = Vocabulary(config["kind"], tuple(config["classes"]))
    consensus = build(config["consensus"]) if config.get("consensus") else Consensus()
    return History(ledger, run_dir, vocabulary, consensus)


def _ingest(ledger: Ledger, run_dir: RunDir, place: Path, annotator: str) -> tuple[int, int, int]:
    """Gives how many answers were new, read, and kept apart."""
    config = ledger.run().config
    labeler, vocabulary = labeler_of(config, run_dir)
    history = History(ledger, run_dir, vocabulary)
    limit = config.get("max_amount_minor")
    orders = Orders(ledger, labeler, "", vocabulary, history.asked_ids, limit, history.gold_of)
    placed = {event.round: event.result for event in ledger.events(step="ordered")}
    if not placed:
        raise LabelError(f"{run_dir.path} has ordered nothing yet; run it first")
    reader = AnswerReader(vocabulary, labeler.price_minor, labeler.currency)
    asked = {t: _asked(orders, history, t) for t in placed}
    everything = Asked(
        frozenset().union(*(one.ids for one in asked.values())),
        {name: sample for one in asked.values() for name, sample in one.by_source.items()},
    )
    answers = _whole(*_read(reader, place, everything, annotator))
    before = len(ledger.quarantine())
    num_new = 0
    for t, order in placed.items():
        mine = [one.event for one in answers if one.event.sample_id in asked[t].ids]
        num_new += orders.take(t, order, mine)
    return num_new, len(answers), len(ledger.quarantine()) - before


def _whole(answers: list[Answer], problems: list[str]) -> list[Answer]:
    """Gives the answers of a file in which nothing is wrong."""
    if problems:
        more = len(problems) - _MOST_PROBLEMS
        shown = " | ".join(problems[:_MOST_PROBLEMS])
        raise LabelError(
            f"{shown}{f' | and {more} more' if more > 0 else ''}; correct these lines and give the "
            "same command again, nothing was taken"
        )
    return answers


def _asked(orders: Orders, history: History, t: int) -> Asked:
    """The samples of a round by the ids that they left under, and by their source_ids."""
    rows = history.dir.read(history.record(t, "selected"))
    left = orders.left_as(t)
    back = {sample: name for name, sample in left.items()}
    by_source: dict[str, int] = {}
    if "source_id" in rows.schema.names:
        names = rows.column("source_id").to_pylist()
        for name, sample in zip(names, rows.column("sample_id").to_pylist(), strict=True):
            by_source[_source(name)] = back[sample]
    return Asked(frozenset(left), by_source)


def _source(name: Any) -> str:
    return name.hex() if isinstance(name, bytes) else str(name)


def _read(
    reader: AnswerReader, place: Path, asked: Asked, annotator: str
) -> tuple[list[Answer], list[str]]:
    answers: list[Answer] = []
    problems: list[str] = []
    for where, fields in _lines(place):
        try:
            if isinstance(fields, str):
                raise LabelError(fields)
            named = {"annotator": annotator, **fields} if annotator else fields
            event = reader.event_of(named, asked, from_text=place.suffix == ".csv")
            if event is not None:
                answers.append(Answer(event, where))
        except LabelError as error:
            problems.append(f"{where}: {error}")
    return answers, problems


def _lines(place: Path) -> Iterator[tuple[str, dict[str, Any] | str]]:
    if place.suffix != ".parquet":
        for number, fields in lines_of(place.read_bytes(), place.name):
            yield f"{place.name}:{number}", fields
        return
    try:
        table = pq.read_table(place)
    except (OSError, pa.ArrowInvalid) as error:
        raise LabelError(f"{place} is no Parquet file ({error})") from error
    for number, fields in enumerate(table.to_pylist()):
        yield f"{place.name} row {number}", fields
