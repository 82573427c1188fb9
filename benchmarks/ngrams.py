"""How fast words become hashed n-grams, and what share of a scoring pass that is.

    python benchmarks/ngrams.py [--quick] [--shards N]

The words are those of the pool of `recipe:language_id` where it has been ingested (`make demo`
does so), otherwise made up. All is counted in CPU-seconds of one thread, so that other work on the
machine matters little. The stages are run one by one over the same words; "whole pass" is rayal's
worker, which does all of them and leaves survivors on disk. Keeping the n-grams between passes
would save the hashing and cost a read; it would be worth its files if a pass became 1.5 times as
fast.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from rayal.engine.scoring import PassState, Scoring
from rayal.engine.survivors import Taken, write_taken
from rayal.engine.worker import Worker
from rayal.keys import Keys
from rayal.models.checkpoint import Description, describe_architecture, model_id, save
from rayal.models.model import Model
from rayal.models.modules import NgramBag
from rayal.models.transforms import Ngrams
from rayal.pool import Pool, Shard, ingest
from rayal.predictors import TorchPredictor
from rayal.scorers.margin import Margin
from rayal.types import Checkpoint

REAL = Path("~/.cache/rayal/pools/language_id").expanduser()
NUM_CLASSES, NUM_BUCKETS, KEEP = 21, 65_536, 100_000
WANTED_WORDS, WANTED_OF_CACHE = 500_000, 1.5


def measure(pool: Pool, shards: Sequence[Shard], folder: Path, turns: int) -> dict[str, float]:
    """Gives the CPU-seconds of each stage over some shards, the medians over the turns."""
    model = Model(
        partial(NgramBag, num_buckets=NUM_BUCKETS), Ngrams("word", num_buckets=NUM_BUCKETS)
    )
    predictor = TorchPredictor(model)
    checkpoint, path = untrained(model, folder / "checkpoint")
    worker = Worker(pool, predictor)
    predictor.load(checkpoint, path, Keys(0, 0))
    seconds: dict[str, list[float]] = {}

    @contextlib.contextmanager
    def timed(stage: str) -> Iterator[None]:
        start = time.process_time()
        yield
        seconds.setdefault(stage, []).append(time.process_time() - start)

    for turn in range(-1, turns):  # the first warms caches, and is not counted
        for shard in shards:
            with timed("reading"):
                columns = ("sample_id", "word")
                rows = list(pool.batches(shard, columns, predictor.batch_rows))
            ids = [torch.arange(len(batch)) for batch in rows]
            with timed("hashing"):
                encoded = [predictor.encode(batch) for batch in rows]
            cache = [keep(one.arguments, folder / f"{at}.npy") for at, one in enumerate(encoded)]
            with timed("cache"):
                for path_of_batch, starts in cache:
                    torch.from_numpy(np.load(path_of_batch, mmap_mode="r").astype(np.int32))
                    torch.from_numpy(starts.astype(np.int32))
            with timed("forward pass"):
                pairs = zip(ids, encoded, strict=True)
                outputs = [predictor.predict(*pair, ("probs",)) for pair in pairs]
            with timed("margin"):
                for one in outputs:
                    Margin().score(one, Keys(0, 0))
        scoring = fresh_pass(checkpoint, path, folder / f"pass-{turn}")
        with timed("whole pass"):
            state = PassState(scoring.keep)
            for shard in shards:
                state.record(worker.score(shard, scoring, state.cut()))
        if turn < 0:
            seconds.clear()
    per_turn = {stage: np.reshape(some, (turns, -1)).sum(1) for stage, some in seconds.items()}
    return {stage: statistics.median(some.tolist()) for stage, some in per_turn.items()}


def keep(arguments: Sequence[torch.Tensor] | None, path: Path) -> tuple[Path, np.ndarray]:
    """Writes a batch's n-grams in two bytes each, the smallest that holds all buckets."""
    assert arguments is not None
    indices, offsets = (part.numpy() for part in arguments)
    np.save(path, indices.astype(np.uint16))
    return path, offsets.astype(np.uint32)


def fresh_pass(checkpoint: Checkpoint, path: str, folder: Path) -> Scoring:
    folder.mkdir()
    taken = folder / "taken.arrow"
    write_taken(taken, Taken(np.empty(0, np.int64), np.empty(0), np.empty(0, bool)))
    return Scoring(
        Keys(0, 0), Margin(), (), KEEP, checkpoint, path, str(taken), str(folder), "pass"
    )


def untrained(model: Model, folder: Path) -> tuple[Checkpoint, str]:
    module = model.build(NUM_CLASSES, 1)
    classes = tuple(f"language-{index}" for index in range(NUM_CLASSES))
    described = Description("class", classes, NUM_CLASSES, 1, 32, describe_architecture(module))
    save(folder, described, [module])
    return Checkpoint("", model_id(described, [module])), str(folder)


def made_up(folder: Path, num_words: int) -> Pool:
    """Gives a pool of random words, 2 to 14 letters of a Latin and a Cyrillic alphabet."""
    rng = np.random.default_rng(0)
    alphabets = ("etaoinshrdlcumwfgypbvkjxqz", "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэф")
    words = []
    for length in rng.integers(2, 15, num_words):
        letters = alphabets[length % 2]
        places = np.minimum(rng.exponential(8.0, length).astype(int), len(letters) - 1)
        words.append("".join(letters[place] for place in places))
    pq.write_table(pa.table({"word": words}), folder / "words.parquet")
    return ingest(str(folder / "words.parquet"), str(folder / "pool"), test_share=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer words and turns")
    parser.add_argument("--shards", type=int, help="how many shards of the pool")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rayal-ngrams-") as name:
        folder = Path(name)
        is_real = (REAL / "manifest.json").exists()
        pool = Pool.open(str(REAL)) if is_real else made_up(folder, 300_000)
        shards = pool.shards[: args.shards or (2 if args.quick else 8)]
        found = measure(pool, shards, folder, turns=3 if args.quick else 7)
    num_words = sum(shard.num_rows for shard in shards)
    print(
        f"{num_words:,} {'words of language_id' if is_real else 'made-up words'}, n-grams of 1 to "
        f"4 characters in {NUM_BUCKETS:,} buckets, {NUM_CLASSES} classes; "
        f"torch {torch.__version__}, numpy {np.__version__}"
    )
    whole, cached = found["whole pass"], found.pop("cache")
    found = {**found, "thread, checks, keeping": whole - sum(found.values()) + whole}
    print(f"{'':26}{'CPU-s per 1e6':>14}{'words/CPU-s':>14}{'of the pass':>13}")
    for stage, seconds in found.items():
        rate = f"{num_words / seconds:,.0f}" if seconds > 0 else ""
        print(f"{stage:26}{seconds / num_words * 1e6:14.3f}{rate:>14}{seconds / whole:13.0%}")
    words_a_second = num_words / found["hashing"]
    verdict = "ok" if words_a_second >= WANTED_WORDS else "BELOW"
    print(f"hashing: {words_a_second:,.0f} words per CPU-s (wanted {WANTED_WORDS:,}): {verdict}")
    gain = whole / (whole - found["hashing"] + cached)
    worth = "worth it" if gain >= WANTED_OF_CACHE else "not worth it"
    print(
        f"a cache of n-grams, {cached / num_words * 1e6:.3f} CPU-s per 1e6 words to read, would "
        f"make a pass {gain:.2f} times as fast (wanted {WANTED_OF_CACHE}): {worth}"
    )


if __name__ == "__main__":
    main()
