"""rayal pool: rows of a pool are forgotten, and their bytes removed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rayal.cli.words import Parser
from rayal.errors import PoolError
from rayal.pool import compact, delete
from rayal.pool.folder import LOCK_HELP, STALE_S


def main(arguments: Sequence[str]) -> int:
    """Does what is asked for and says it; gives the exit code."""
    parser = Parser(prog="rayal pool", description=__doc__)
    parser.add_argument("action", choices=("delete", "compact"), help="forget rows; remove bytes")
    parser.add_argument("pool_dir", help="the pool: a folder, or a URL such as s3://bucket/pool")
    parser.add_argument(
        "--ids", metavar="FILE", help="delete: text, an id a line (source_id where the pool has it)"
    )
    parser.add_argument("--lock-stale-s", type=float, default=STALE_S, help=LOCK_HELP)
    words = parser.parse_args(arguments)
    if (words.ids is not None) != (words.action == "delete"):
        parser.error("delete takes --ids FILE, and compact does not")
    if words.action == "compact":
        num_shards = compact(words.pool_dir, words.lock_stale_s)
        print(f"{words.pool_dir}: {num_shards} shard files were written anew without removed rows")
        return 0
    try:
        lines = Path(words.ids).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PoolError(f"--ids {words.ids} cannot be read ({error}); give a text file") from error
    num_rows = delete(words.pool_dir, lines, words.lock_stale_s)
    print(
        f"{words.pool_dir}: {num_rows} rows are removed from every later round; their bytes go "
        f"with: rayal pool compact {words.pool_dir}"
    )
    return 0
