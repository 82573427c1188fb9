"""rayal select: picks the rows to label out of what your own code computed; no pool, no loop.

  rayal select --outputs 'scored/*.parquet' --labelled ids.parquet --out batch.parquet \\
      strategy=k_center budget=5000 seed=0

--outputs has a column sample_id (whole numbers, each once) and what the strategy needs of
  embedding  lists of one width, whole numbers or floats of any size; k_center, coverage, clusters,
             BADGE
  probs      lists, one probability a class; margin, entropy, BADGE; or logits in their place
  score      a number, higher = sooner: stands in for a scorer whose columns are not there
  cost, group, draws, preds, or any other column that a strategy names
under other names by columns.embedding=NAME and so on.
--labelled has sample_id, and label where it is known (rows without are pending: ordered, not to be
picked again); words also need classes=[cat,dog], in the order of the probabilities, where a
strategy looks at labels. Rows that are not among the outputs bring their own columns, such as
embedding.
The batch has sample_id, rank, score, key, probability, reason, cluster, labelled_distance,
nearest_id, nearest_distance, strategy, seed and round, in the order picked.

Picks depend on the rows, the configuration and the seed alone, not on files or their order, nor on
engine=ray engine.num_workers=4 (on several nodes all must see the folder of --out, or --work).
`--cfg job` prints every key; those of strategy and engine go by their last name, too, such as
precision=float. Strategies of your own are found in the current folder, or by --config-dir. With
--work DIR the same command goes on where it was killed: slices and picks stay there until another
selection comes to its end. From Python: `rayal.select(outputs, strategy="k_center", budget=5000)`.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from rayal.cli.config import SELECT, build, composed, conf_dir
from rayal.cli.run import find_modules
from rayal.cli.source import Source
from rayal.cli.words import Parser
from rayal.errors import ConfigError
from rayal.pool.sources import is_meant
from rayal.progress import Reporter, format_seconds
from rayal.rundir import write_table
from rayal.selection import Columns, Selection
from rayal.types import Kind

if TYPE_CHECKING:
    import pyarrow as pa

    from rayal.engine.scoring import Engine
    from rayal.strategy import Strategy


_GROUPS = ("strategy", "engine")  # whose keys go by their last name


def main(arguments: Sequence[str]) -> int:
    """Selects, writes the batch and says what was done; gives the exit code."""
    words = read_words(arguments)
    source = _source(words.config_dir)
    plain, chosen = composed(_spelled_out(words.overrides, source), source)
    if words.cfg:
        print(OmegaConf.to_yaml(OmegaConf.create(plain)), end="")
        return 0
    out = _checked_out(words)
    _find_own(plain)
    selection = _selection(plain, chosen.get("strategy"))
    start_s = time.monotonic()
    batch = selection.run(
        words.outputs, words.labelled, words.work, scratch=out.parent, reporter=Reporter()
    )
    write_table(out, batch)
    note = batch.schema.metadata[b"rayal.note"].decode()
    took = format_seconds(time.monotonic() - start_s)
    print(f"{words.out}: {batch.num_rows} picks in {took}" + (f" ({note})" if note else ""))
    return 0


def read_words(arguments: Sequence[str]) -> argparse.Namespace:
    """Gives flags and overrides, in whatever order they come."""
    parser = Parser(
        prog="rayal select",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="rayal select --outputs FILES --out FILE [--labelled FILES] [key=value ...]",
    )
    for flag, metavar, what in (
        ("--outputs", "FILES", "Parquet: a file, folder, glob or URI"),
        ("--labelled", "FILES", "the same, of labelled and pending rows"),
        ("--out", "FILE", "the Parquet file to write"),
        ("--work", "DIR", "keeps slices and picks here, to go on"),
        ("--config-dir", "DIR", "a folder with strategies of your own"),
    ):
        parser.add_argument(flag, type=_path, metavar=metavar, help=what)
    parser.add_argument("--cfg", choices=("job",), help="prints the configuration")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    words = parser.parse_intermixed_args(list(arguments))
    missing = [flag for flag in ("outputs", "out") if getattr(words, flag) is None]
    if missing and not words.cfg:
        named = ", ".join(f"--{flag}" for flag in missing)
        parser.error(f"the following arguments are required: {named}")
    return words


def _path(word: str) -> str:
    if not word:  # or it would be the current folder
        raise argparse.ArgumentTypeError("expected a path, found none; is its variable set?")
    return word


def select(
    outputs: Any,
    *,
    budget: int,
    strategy: str | Strategy = "k_center",
    labelled: Any = None,
    seed: int = 0,
    round: int = 0,
    kind: Kind = "class",
    classes: Sequence[str | int] | None = None,
    columns: Mapping[str, str] | Columns | None = None,
    engine: str | Engine = "local",
    work: str | Path | None = None,
    config_dir: str | Path | None = None,
    verbose: bool = False,
    **options: Any,
) -> pa.Table:
    """Gives the batch that `rayal select` would write: one row a pick, in the order picked.

    `outputs` are arrays by name, a pyarrow Table or Dataset, a Ray Dataset, or the path, folder or
    glob of Parquet files; they hold `sample_id`, and what the strategy needs of `embedding`,
    `probs` or `logits`, `score`, `cost`, `group`; `columns` says which have other names, such as
    {"embedding": "vector"}. `labelled` are ids, in anything of one dimension, or like `outputs`,
    with `label` where it is known, and with their own columns where rows are not among the outputs.
    `strategy` is a name (`rayal select --help`), or a Strategy. `options` are keys of the strategy
    or of the engine, by their last name or dotted: precision="float", num_workers=4. In the folder
    `work` slices and picks are kept, so that the same call goes on where it was killed, until
    another one comes to its end.

    Raises:
        RayalError: what is asked for cannot be had; the message says what to do.
    """
    parts = {"strategy": strategy, "engine": engine}
    groups = [group for group, part in parts.items() if isinstance(part, str)]
    plain, chosen = composed(
        ["budget=1", *(f"{group}={parts[group]}" for group in groups)], _source(config_dir)
    )
    given = {"budget": budget, "seed": seed, "round": round, "kind": kind, "classes": classes}
    plain |= {name: _plain(value) for name, value in given.items()}
    if not isinstance(columns, Columns | Mapping | None):
        raise ConfigError(
            f"columns is {columns!r}, expected other names by name, such as "
            '{"embedding": "vector"}'
        )
    names = asdict(columns) if isinstance(columns, Columns) else columns or {}
    plain["columns"] |= _plain(names)
    for name, value in options.items():
        _put({group: plain[group] for group in groups}, name, _plain(value))
    selection = _selection(plain, chosen.get("strategy"))
    if not isinstance(strategy, str):
        selection = replace(selection, strategy=strategy, name=None)
    if not isinstance(engine, str):
        selection = replace(selection, engine=engine)
    return selection.run(outputs, labelled, work, reporter=Reporter(quiet=not verbose))


def _source(config_dir: str | Path | None) -> Source:
    added = None if config_dir is None else str(Path(config_dir).expanduser().absolute())
    return Source(str(conf_dir()), SELECT, added)


def _selection(plain: dict[str, Any], strategy: str | None) -> Selection:
    plain["name"] = plain.get("name") or strategy
    selection: Selection = build(plain)
    return selection


def _find_own(plain: dict[str, Any]) -> None:
    """Lets this process import the user's own classes, here and where the engine takes them."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    find_modules(plain)


def _checked_out(words: argparse.Namespace) -> Path:
    """Gives where the batch goes, refused before any work is done.

    Raises:
        ConfigError: it cannot be written, or would be taken for outputs.
    """
    out = Path(words.out).expanduser().absolute()
    if out.is_dir():
        raise ConfigError(f"--out is {words.out}, a folder that is there; name a Parquet file")
    if not out.parent.is_dir():
        raise ConfigError(
            f"--out is {words.out}, in a folder that does not exist; make {out.parent} first"
        )
    if not os.access(out.parent, os.W_OK):
        raise ConfigError(
            f"--out is {words.out}, in a folder that cannot be written to; name another"
        )
    for flag in ("outputs", "labelled"):
        source = getattr(words, flag)
        if source is not None and is_meant(source, str(out)):
            raise ConfigError(
                f"--out is {words.out}, which --{flag} {source} takes in as well; name a file "
                "elsewhere"
            )
    return out


def _spelled_out(overrides: Sequence[str], source: Source) -> list[str]:
    """Gives overrides with the whole key where one names a key of the strategy or the engine by
    its last name, as `options` do in a call.

    Raises:
        ConfigError: several keys are called so.
    """
    keys = [word.partition("=")[0] if "=" in word else "" for word in overrides]
    with source.opened() as loader:
        own = {*OmegaConf.load(conf_dir() / f"{SELECT}.yaml"), *loader.list_groups("")}
    short = {key for key in keys if key.replace(".", "").isidentifier()}
    short = {key for key in short if key.split(".")[0] not in own}
    if not short:
        return list(overrides)
    choices = [word for word, key in zip(overrides, keys, strict=True) if key in _GROUPS]
    plain, _ = composed(["budget=1", *choices], source)
    groups = {group: plain[group] for group in _GROUPS}
    words = []
    for word, key in zip(overrides, keys, strict=True):
        found = _paths(_all_nodes(groups), key) if key in short else []
        if len(found) > 1:
            raise ConfigError(f"{_several(found, key)}; write one of them out")
        words.append(f"{found[0]}.{word[key.rfind('.') + 1 :]}" if found else word)
    return words


def _put(groups: dict[str, Any], name: str, value: Any) -> None:
    """Sets the one key of the groups that is called so; a dotted one may be new in its node.

    Raises:
        ConfigError: there is none, or there are several.
    """
    nodes = _all_nodes(groups)
    above, _, last = name.rpartition(".")
    found = _paths(nodes, name) or (_below(nodes, above) if above else [])
    if len(found) == 1:
        nodes[found[0]][last] = value
        return
    known = sorted({key for node in nodes.values() for key in node if key[:1] != "_"})
    close = difflib.get_close_matches(name, known, n=2)
    meant = f"; did you mean {' or '.join(close)}?" if close else ""
    said = f"there is no '{name}'{meant} (there are: {', '.join(known) or 'none'})"
    if found:
        said = f"{_several(found, name)}; give one of them as **{{...}}"
    raise ConfigError(f"rayal.select: {said}")


def _paths(nodes: Mapping[str, dict[str, Any]], name: str) -> list[str]:
    """Gives the nodes that have a key of this name, which may be dotted."""
    above, _, last = name.rpartition(".")
    return [path for path in _below(nodes, above) if last in nodes[path]]


def _below(nodes: Mapping[str, dict[str, Any]], above: str) -> list[str]:
    return [path for path in nodes if not above or path == above or path.endswith(f".{above}")]


def _several(paths: Sequence[str], name: str) -> str:
    last = name.rpartition(".")[2]
    every = ", ".join(f"{path}.{last}" for path in paths)
    return f"several keys are called '{name}' ({every})"


def _all_nodes(groups: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {path: node for group, tree in groups.items() for path, node in _nodes(tree, group)}


def _nodes(node: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Gives every mapping in a tree, by its dotted path."""
    if isinstance(node, dict):
        yield path, node
        for name, value in node.items():
            yield from _nodes(value, f"{path}.{name}")


def _plain(value: Any) -> Any:
    """Gives numbers and words of NumPy's as Python's, arrays and sequences as lists, in mappings
    as well."""
    value = _of_numpy(value)
    if isinstance(value, Mapping):
        return {_of_numpy(name): _plain(one) for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value


def _of_numpy(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
