"""6,644,757 words of 21 languages: the word is the sample, its language the label.

The "large" lists of wordfreq (Speer 2022, doi:10.5281/zenodo.7199437; data CC-BY-SA-4.0). A word
of several lists is of the language in which it ranks highest; of equal ranks, the alphabetically
first.
"""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from rayal.errors import PoolError
from rayal.keys import hash_u64, salt
from rayal.pool.recipes.fetch import from_pip
from rayal.types import Kind

LABEL_COLUMN = "language"
KIND: Kind = "class"
ROWS_PER_SHARD: int | None = 131_072  # 51 shards of about 2 MB, so that two workers end together
NUM_ROWS: int | None = 6_644_757

_WHEEL = "wordfreq-3.1.1-py3-none-any.whl"
_SHA256 = "4b1c6ecffc6198be3396d5cf871c4423ca71c907c231348d352dd54d62b97473"
_FOLDER = "wordfreq/data/large_"
_BATCH_ROWS = 65_536


def origin(source: str | None) -> str:
    """Gives the release and its checksum, wherever it lies."""
    return f"{_WHEEL} {_SHA256}"


def read(source: str | None) -> Iterator[pa.RecordBatch]:
    """Gives columns `word` and `language`, mixed by a hash, so that shards are alike. O(words).

    `source` is the wheel, where it is not to be fetched.

    Raises:
        PoolError: the wheel cannot be had, or msgpack is not installed.
    """
    place = from_pip("wordfreq==3.1.1", _WHEEL, _SHA256, "language_id", source)
    with zipfile.ZipFile(place) as wheel:
        lists = {
            name.removeprefix(_FOLDER).split(".")[0]: name
            for name in wheel.namelist()
            if name.startswith(_FOLDER)
        }
        ranked = {language: _words(wheel.read(lists[language])) for language in sorted(lists)}
    yield from mixed(ranked)


def mixed(ranked: dict[str, pa.Array]) -> Iterator[pa.RecordBatch]:
    """Gives every word of some lists (most frequent first) once, in an order that mixes them."""
    languages = list(ranked)
    lengths = [len(words) for words in ranked.values()]
    coded = pa.concat_arrays(list(ranked.values())).dictionary_encode()
    ranked.clear()
    codes = coded.indices.to_numpy()
    best_rank = np.full(len(coded.dictionary), np.iinfo(np.int32).max, np.int32)
    language_of = np.zeros(len(best_rank), np.int8)
    start = 0
    for index, length in enumerate(lengths):
        # Each list holds a word once, so an assignment by index meets no code twice.
        mine, rank = codes[start : start + length], np.arange(length, dtype=np.int32)
        better = rank < best_rank[mine]
        best_rank[mine[better]] = rank[better]
        language_of[mine[better]] = index
        start += length
    order = np.argsort(hash_u64(salt("language_id"), np.arange(len(best_rank))), kind="stable")
    names = pa.array(languages, pa.string())
    for lo in range(0, len(order), _BATCH_ROWS):
        places = order[lo : lo + _BATCH_ROWS]
        yield pa.record_batch(
            [
                coded.dictionary.take(pa.array(places)),
                names.take(pa.array(language_of[places])),
            ],
            names=["word", LABEL_COLUMN],
        )


def _words(packed: bytes) -> pa.Array:
    try:
        import msgpack
    except ImportError:
        raise PoolError(
            "recipe language_id needs msgpack to read its lists; pip install 'rayal[recipes]'"
        ) from None
    bins = msgpack.unpackb(gzip.decompress(packed), raw=False)[1:]
    return pa.array([word for words in bins for word in words], pa.string())
