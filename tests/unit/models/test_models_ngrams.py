import numpy as np
import pyarrow as pa
import pytest
import torch

from rayal.errors import ConfigError, PoolError
from rayal.models.transform import Undecodable
from rayal.models.transforms.ngrams import MARK, MIX, SEED, STEP, Ngrams

WORDS = ["cat", "", "über", "日本語", "a", "😀x", "naïve", "cat", "ab" * 20, "\x00", "שלום"]
MASK = 0xFFFFFFFF


def naive(text: str, transform: Ngrams) -> list[int]:
    """One word at a time, with Python's integers: every window of the marked text."""
    marked = [MARK, *map(ord, text), MARK]
    found = []
    for start in range(len(marked)):
        for length in range(transform.min_length, transform.max_length + 1):
            window = marked[start : start + length]
            if len(window) < length or window == [MARK]:
                continue
            value = SEED
            for code in window:
                value = (value * STEP + code) & MASK
            value = ((value ^ (value >> 15)) * MIX) & MASK
            found.append(value >> (33 - transform.num_buckets.bit_length()))
    return found


def rows(texts: list[str | None], type_: pa.DataType | None = None) -> pa.RecordBatch:
    return pa.record_batch({"text": pa.array(texts, type_ or pa.string())})


def bags(encoded: tuple[torch.Tensor, torch.Tensor]) -> list[list[int]]:
    indices, offsets = (part.tolist() for part in encoded)
    ends = [*offsets, len(indices)][1:]
    return [indices[lo:hi] for lo, hi in zip(offsets, ends, strict=True)]


@pytest.mark.parametrize("lengths", [(1, 4), (2, 2), (3, 5), (1, 1), (6, 9)])
@pytest.mark.parametrize("type_", [pa.string(), pa.large_string()])
def test_equals_the_naive_ngrams_word_by_word(lengths: tuple[int, int], type_: pa.DataType) -> None:
    transform = Ngrams(num_buckets=1 << 12, min_length=lengths[0], max_length=lengths[1])
    encoded = transform(rows(WORDS, type_))
    assert [part.dtype for part in encoded] == [torch.int32, torch.int32]
    assert bags(encoded) == [naive(word, transform) for word in WORDS]


def test_slices_dictionaries_and_many_chunks_give_the_same_bags() -> None:
    transform = Ngrams()
    words = (WORDS * 1000)[:9000]  # crosses the chunks of 4096 rows
    expected = [naive(word, transform) for word in WORDS] * 1000
    assert bags(transform(rows(words))) == expected[:9000]
    assert bags(transform(rows(words).slice(4090, 20))) == expected[4090:4110]
    as_dictionary = pa.record_batch({"text": pa.array(WORDS).dictionary_encode()})
    assert bags(transform(as_dictionary)) == expected[: len(WORDS)]
    assert bags(transform(rows([]))) == []


def test_a_bag_does_not_depend_on_its_neighbours() -> None:
    transform = Ngrams()
    together = bags(transform(rows(["ab", "c"])))
    assert together == [bags(transform(rows([word])))[0] for word in ("ab", "c")]


def test_buckets_are_used_evenly() -> None:
    transform = Ngrams(num_buckets=256, min_length=3, max_length=3)
    letters = "abcdefghijklmnopqrstuvwxyzäöüßéè"
    words = [a + b + c for a in letters for b in letters for c in letters]
    inner = transform(rows(words))[0].reshape(len(words), 3)[:, 1]  # ^ab, abc, bc^
    counts = np.bincount(inner.numpy(), minlength=256)
    expected = len(words) / 256
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 255 + 5 * np.sqrt(2 * 255)


def test_null_and_broken_texts_are_undecodable() -> None:
    with pytest.raises(Undecodable) as caught:
        Ngrams()(rows(["a", None, "b", None]))
    assert caught.value.positions == (1, 3)
    assert "column 'text' is null there" in str(caught.value)
    halves = ["é".encode()[:1], "é".encode()[1:]]  # together they would be a letter
    for texts, bad in ((halves, (0, 1)), ([b"ok", b"\xff\xfe", b"fine"], (1,))):
        offsets = np.cumsum([0, *map(len, texts)]).astype(np.int32)
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(texts))]
        broken = pa.Array.from_buffers(pa.string(), len(texts), buffers)
        with pytest.raises(Undecodable, match="not UTF-8") as caught:
            Ngrams()(pa.record_batch({"text": broken}))
        assert caught.value.positions == bad


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"num_buckets=1000, expected a power of two .* try 512"):
        Ngrams(num_buckets=1000)
    with pytest.raises(ConfigError, match="lengths 3 to 2"):
        Ngrams(min_length=3, max_length=2)
    with pytest.raises(PoolError, match=r"no column 'word' \(it has: text\)"):
        Ngrams("word")(rows(["a"]))
    with pytest.raises(PoolError, match="column 'n' is int64, expected text"):
        Ngrams("n")(pa.record_batch({"n": pa.array([1])}))
