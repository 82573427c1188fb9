"""rayal embed: a frozen model's embeddings of every row of a pool, computed once.

  rayal embed experiment=language_id checkpoint=RUN_DIR/checkpoints/r0001 features=DIR dtype=int8

Words are those of `rayal run` (pool, model, predictor, engine, experiment), and
  features      the folder of sets, on a path that every worker sees or in a store (s3://...);
                each set has one in it
  checkpoint    what a trainer left; without it the module must bring weights of its own
  dtype         float16, int8 (one scale a column, half the bytes) or float32
  features_gib  the folder's budget: sets that were not used for longest go first, none in use
Killed, the same command goes on; of a pool that has grown it embeds the new shards. A run reads
them as a column of the pool: rayal run ... model=linear pool.features=DIR. `--cfg job` prints every
key.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from rayal.cli.config import EMBED, SHARED, build, composed, conf_dir
from rayal.cli.run import find_modules
from rayal.cli.source import Source
from rayal.cli.words import Parser


def main(arguments: Sequence[str]) -> int:
    """Embeds and says what is there; gives the exit code."""
    parser = Parser(
        prog="rayal embed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="rayal embed features=DIR [checkpoint=DIR] [key=value ...]",
    )
    parser.add_argument("--config-dir", metavar="DIR", help="a folder with parts of your own")
    parser.add_argument("--cfg", choices=("job",), help="prints the configuration")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    words = parser.parse_intermixed_args(list(arguments))
    added = words.config_dir and str(Path(words.config_dir).expanduser().absolute())
    plain, _ = composed(words.overrides, Source(str(conf_dir()), EMBED, added))
    if os.getcwd() not in sys.path:  # last, so that nothing there hides an installed package
        sys.path.append(os.getcwd())
    from rayal.embedder import Embedder

    takes = inspect.signature(Embedder).parameters
    plain = {name: node for name, node in plain.items() if name in {"_target_", *takes, *SHARED}}
    if words.cfg:
        print(OmegaConf.to_yaml(OmegaConf.create(plain)), end="")
        return 0
    find_modules(plain)
    print(build(plain).run(plain))
    return 0
