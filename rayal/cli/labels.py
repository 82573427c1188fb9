"""rayal labels: answers that came in a file, by mail for instance, into a run's ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rayal.cli.opening import labeler_of, open_run
from rayal.cli.words import Parser
from rayal.errors import LabelError
from rayal.history import History
from rayal.labelers.answers import Answer, AnswerReader, Asked, lines_of
from rayal.ledger import Ledger
from rayal.ordering import Orders
from rayal.rundir import RunDir

_MOST_PROBLEMS = 5
_SUFFIXES = (".parquet", ".jsonl", ".csv")


def main(arguments: Sequence[str]) -> int:
    """Takes the answers of a file; gives the exit code."""
    parser = Parser(prog="rayal labels", description=__doc__)
    parser.add_argument("what", choices=("ingest",), help="take the answers of a file")
    parser.add_argument("run_dir")
    parser.add_argument(
        "file", help="Parquet, CSV or JSONL: sample_id or source_id, label; as `file_drop` reads"
    )
    parser.add_argument(
        "--annotator", default="", help="whose answers these are, if no column says"
    )
    parser.add_argument("--ledger-url", help="where the ledger is not in RUN_DIR")
    words = parser.parse_args(arguments)
    place = Path(words.file).expanduser()
    if place.suffix not in _SUFFIXES or not place.is_file():
        raise LabelError(
            f"{words.file} is not there, or is none of {', '.join(_SUFFIXES)}; save a spreadsheet "
            "as CSV (UTF-8)"
        )
    with open_run(words.run_dir, words.ledger_url, writer=True) as (ledger, run_dir):
        num_new, num_read, num_odd = _ingest(ledger, run_dir, place, words.annotator)
    print(f"{place}: {num_read} answers, {num_new} of them new")
    if num_odd:
        print(f"{num_odd} of them were not taken; see rayal orders {words.run_dir} --quarantine")
    return 0


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
    answers, problems = _read(reader, place, everything, annotator)
    if problems:
        more = len(problems) - _MOST_PROBLEMS
        shown = " | ".join(problems[:_MOST_PROBLEMS])
        raise LabelError(
            f"{shown}{f' | and {more} more' if more > 0 else ''}; correct these lines and give the "
            "same command again, nothing was taken"
        )
    before = len(ledger.quarantine())
    num_new = 0
    for t, order in placed.items():
        mine = [one.event for one in answers if one.event.sample_id in asked[t].ids]
        num_new += orders.take(t, order, mine)
    return num_new, len(answers), len(ledger.quarantine()) - before


def _asked(orders: Orders, history: History, t: int) -> Asked:
    """The samples of a round by the ids that they left under, and by their source_ids."""
    rows = history.dir.read(history.record(t, "selected"))
    left = orders.left_as(t)
    back = {sample: name for name, sample in left.items()}
    by_source: dict[str, int] = {}
    if "source_id" in rows.schema.names:
        names = rows.column("source_id").to_pylist()
        for name, sample in zip(names, rows.column("sample_id").to_pylist(), strict=True):
            by_source[name.hex() if isinstance(name, bytes) else str(name)] = back[sample]
    return Asked(frozenset(left), by_source)


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
