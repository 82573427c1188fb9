"""The other side of file_drop: reads the outbox, knows the truth, answers in portions."""

from __future__ import annotations

import collections
import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rayal.pool import Pool


class Vendor:
    """Answers what lies in a run's outbox, in files of its own size and order.

    An answer is a function of the pool alone, so whoever asks again is told the same. What was
    answered is read back from the inbox: a vendor that starts again knows what the last one did.
    """

    def __init__(self, pool: Pool, run_dir: Path | str, seed: int = 0) -> None:
        self.pool = pool
        self.outbox = Path(run_dir) / "labeler" / "outbox"
        self.inbox = Path(run_dir) / "labeler" / "inbox"
        self.rng = np.random.default_rng(seed)

    def ordered(self) -> collections.Counter[int]:
        """Gives how often each sample lies in the outbox."""
        parts = self.outbox.glob("*/part-*.jsonl")
        return collections.Counter(i for part in parts for i in _ids(part))

    def answer(self, share: float = 1.0) -> int:
        """Answers about this share of what is open, and now and then something again; gives the
        number of samples answered for the first time."""
        num_new = 0
        for manifest in sorted(self.outbox.glob("*/manifest.json")):
            key = manifest.parent.name
            asked = [i for part in manifest.parent.glob("part-*.jsonl") for i in _ids(part)]
            files = [*(self.inbox / key).glob("*.*"), *self.inbox.glob(f"{key}*.*")]
            known = {i for file in files for i in _answered(file)}
            left = self.rng.permutation([i for i in asked if i not in known])
            new = left[: int(np.ceil(share * len(left)))]
            if not len(new):
                continue
            num_new += len(new)
            again = self.rng.permutation(sorted(known))[: int(self.rng.integers(0, 3))]
            for rows in np.array_split(np.concatenate([new, again]).astype(np.int64), 2):
                if len(rows):
                    self._write(key, rows, len(files))
                    files.append(self.inbox)
        return num_new

    @contextlib.contextmanager
    def at_work(self, every_s: float = 0.1) -> Iterator[None]:
        """Answers about half of what is open, again and again, in a thread."""
        ended = threading.Event()

        def work() -> None:
            while not ended.wait(every_s):
                self.answer(0.5)

        thread = threading.Thread(target=work, name="vendor", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _write(self, key: str, ids: np.ndarray, number: int) -> None:
        labels = [str(label) for label in self.pool.secret_labels(ids)]
        pairs = list(zip(ids.tolist(), labels, strict=True))
        if self.rng.random() < 0.5:
            text = "".join(json.dumps({"sample_id": i, "label": x}) + "\n" for i, x in pairs)
            suffix = "jsonl"
        else:
            text = "sample_id,label\n" + "".join(f"{i},{x}\n" for i, x in pairs)
            suffix = "csv"
        folder = self.inbox / key if self.rng.random() < 0.5 else self.inbox
        folder.mkdir(parents=True, exist_ok=True)
        final = folder / f"{key}-{number:03d}.{suffix}"
        unfinished = final.with_name(f".{final.name}")
        unfinished.write_text(text)
        unfinished.rename(final)


def _ids(part: Path) -> list[int]:
    return [json.loads(line)["sample_id"] for line in part.read_text().splitlines()]


def _answered(file: Path) -> list[int]:
    if file.suffix == ".jsonl":
        return _ids(file)
    return [int(line.split(",")[0]) for line in file.read_text().splitlines()[1:]]
