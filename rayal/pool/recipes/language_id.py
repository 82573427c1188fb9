"""6,644,757 words of 21 languages: the word is the sample, its language the label.

The "large" lists of wordfreq (Speer 2022, doi:10.5281/zenodo.7199437; data CC-BY-SA-4.0), whose
words come in classes of frequency, a hundredth of a bel wide. A word of several lists is of the
language in which it is most frequent; where it is equally frequent, of the alphabetically first.
"""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from rayal.errors import PoolError
from rayal.keys import hash_u64, salt
from rayal.pool.recipes.fetch import from_pip, own_file
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
    """Gives the release and its checksum, wherever it lies.

    Raises:
        PoolError: the source is another file.
    """
    if source is not None:
        own_file(source, _WHEEL, _SHA256, "language_id")
    return f"{_WHEEL} {_SHA256}"


def read(source: str | None) -> Iterator[pa.RecordBatch]:
    """Gives columns `word` and `language`, mixed by a hash, so that shards are alike. O(words).

    `source` is the wheel, where it is not to be fetched.

    Raises:
        PoolError: the wheel cannot be had, or msgpack is not installed.
    """
    place = from_pip("wordfreq==3.1.1", _WHEEL, _SHA256, "language_id", source)
    with zipfile.ZipFile(place) as wheel:
        names = {
            name.removeprefix(_FOLDER).split(".")[0]: name
            for name in wheel.namelist()
            if name.startswith(_FOLDER)
        }
        lists = {language: _words(wheel.read(names[language])) for language in sorted(names)}
    yield from mixed(lists)


def mixed(lists: dict[str, list[pa.Array]]) -> Iterator[pa.RecordBatch]:
    """Gives every word of some lists once, in an order that mixes them; `lists` is emptied.

    A list is its words by class of frequency, most frequent first.
    """
    names = pa.array(list(lists), pa.string())
    sizes = [np.asarray([len(words) for words in bins]) for bins in lists.values()]
    coded = pa.concat_arrays([words for bins in lists.values() for words in bins])
    lists.clear()
    coded = coded.dictionary_encode()
    codes = coded.indices.to_numpy()
    best_rank = np.full(len(coded.dictionary), np.iinfo(np.int32).max, np.int32)
    language_of = np.zeros(len(best_rank), np.int8)
    start = 0
    for index, size in enumerate(sizes):
        # Each list holds a word once, so an assignment by index meets no code twice.
        mine = codes[start : start + size.sum()]
        rank = np.repeat(np.arange(len(size), dtype=np.int32), size)
        better = rank < best_rank[mine]
        best_rank[mine[better]] = rank[better]
        language_of[mine[better]] = index
        start += len(mine)
    order = np.argsort(hash_u64(salt("language_id"), np.arange(len(best_rank))), kind="stable")
    for lo in range(0, len(order), _BATCH_ROWS):
        places = order[lo : lo + _BATCH_ROWS]
        words, languages = coded.dictionary.take(pa.array(places)), language_of[places]
        yield pa.record_batch(
            [words, names.take(pa.array(languages))], names=["word", LABEL_COLUMN]
        )


def _words(packed: bytes) -> list[pa.Array]:
    try:
        import msgpack
    except ImportError:
        raise PoolError(
            "recipe language_id needs msgpack to read its lists; pip install 'rayal[recipes]'"
        ) from None
    bins = msgpack.unpackb(gzip.decompress(packed), raw=False)[1:]
    return [pa.array(words, pa.string()) for words in bins]
