"""rayal erase: samples are forgotten by pool, caches, runs and vendors, and a proof is left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rayal.cli.opening import labeler_of, open_run
from rayal.cli.words import Parser
from rayal.errors import LabelError


def main(arguments: Sequence[str]) -> int:
    """Erases samples and prints the proof; gives the exit code."""
    parser = Parser(prog="rayal erase", description=__doc__)
    parser.add_argument("run_dir", nargs="+", help="every run that may have picked them")
    parser.add_argument("--sample-id", nargs="+", default=[], metavar="ID")
    parser.add_argument("--ids", metavar="FILE", help="text, a sample_id a line")
    parser.add_argument("--ledger-url", help="where the ledger is not in RUN_DIR")
    words = parser.parse_args(arguments)
    from rayal.erasing import check_ids, erase

    texts = list(words.sample_id)
    if words.ids:
        try:
            texts += Path(words.ids).expanduser().read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise LabelError(f"--ids {words.ids} cannot be read ({error})") from error
    ids = check_ids(texts)
    if not ids:
        parser.error("give --sample-id ID ..., or --ids FILE")
    for path in words.run_dir:
        with open_run(path, words.ledger_url, writer=True) as (ledger, run_dir):
            labeler, vocabulary = labeler_of(ledger.run().config, run_dir)
            proof = erase(ledger, run_dir, labeler, vocabulary, ids)
        print(json.dumps({"run_dir": path, **asdict(proof)}, indent=1))
    return 0
