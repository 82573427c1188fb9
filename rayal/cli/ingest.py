"""rayal ingest: a source becomes a sharded pool; new files of it are added to one that is there."""

from __future__ import annotations

from collections.abc import Sequence

from rayal.cli.words import Parser
from rayal.pool import ingest
from rayal.pool.folder import LOCK_HELP, STALE_S
from rayal.progress import Reporter


def main(arguments: Sequence[str]) -> int:
    """Ingests and says what is there; gives the exit code."""
    parser = Parser(prog="rayal ingest", description=__doc__)
    parser.add_argument(
        "source",
        help="a Parquet, Arrow, CSV or JSONL file, an image or a WebDataset tar; a folder or glob "
        "of them; a Delta or Lance table; a URI; or recipe:NAME",
    )
    parser.add_argument("pool_dir", help="the folder to make, or a URL such as s3://bucket/pool")
    parser.add_argument(
        "--id-column", help="an int64 column becomes sample_id, any other source_id"
    )
    parser.add_argument("--label-column", help="kept apart: only an oracle and the test see it")
    parser.add_argument("--test-share", type=float, default=0.1, help="default 0.1")
    parser.add_argument("--kind", choices=("class", "multilabel", "number"), help="of the label")
    parser.add_argument(
        "--drop", metavar="COLUMN[,COLUMN]", help="columns of the source to leave out"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the test split")
    parser.add_argument("--lock-stale-s", type=float, default=STALE_S, help=LOCK_HELP)
    words = parser.parse_args(arguments)
    with Reporter().phase("ingest", None) as bar:
        pool = ingest(
            words.source,
            words.pool_dir,
            id_column=words.id_column,
            label_column=words.label_column,
            test_share=words.test_share,
            kind=words.kind,
            seed=words.seed,
            drop=[name for name in (words.drop or "").split(",") if name],
            lock_stale_s=words.lock_stale_s,
            progress=lambda done, _: bar.advance(done - bar.num_done),
        )
    vocabulary = pool.vocabulary
    labels = "no labels"
    if vocabulary is not None:
        labels = f"{len(vocabulary.classes)} classes" if vocabulary.classes else "numbers as labels"
    if pool.manifest.num_null_labels:
        labels += f", {pool.manifest.num_null_labels:,} rows without a label"
    print(
        f"{words.pool_dir}: {pool.num_rows:,} rows in {len(pool.shards)} shards, "
        f"{pool.num_test_rows:,} test rows, {labels}"
    )
    for note in pool.manifest.notes:
        print(f"note: {note}")
    return 0
