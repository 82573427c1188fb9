"""A run whose folder lies in a bucket: the same run as on a disk, whatever dies."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from buckets import Bucket, forget_copies
from commands import Command
from doors import Doors
from runs import digest, run

from rayal import copies, storage
from rayal.places import Place
from rayal.pool import Pool

SMALL = (
    "model=mlp", "model.module.hidden=[16]", "num_rounds=2", "budget=20", "trainer.min_steps=20",
    "predictor.batch_rows=64", "strategy=cluster_margin", "strategy.num_candidates=300",
)  # fmt: skip
RAY = (
    "engine=ray", "engine.num_workers=2", "engine.num_cpus=0.5", "engine.object_store_gib=0.1",
    "engine.timeout_s=120", "trainer.num_workers=1",
)  # fmt: skip


class Killed(BaseException):
    """Not an Exception: nothing in rayal may catch it."""


@pytest.fixture
def url(bucket: Bucket, request: pytest.FixtureRequest) -> str:
    """A folder of the bucket that nothing is in."""
    return f"{bucket.url}/{request.node.name.replace('[', '/').strip(']')}"


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where this test's local copies lie."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    forget_copies()
    yield tmp_path
    copies._let_go()


def _words(pool: Pool, run_dir: str | Path, ledger: Path | str, *more: str) -> list[str]:
    there = ledger if isinstance(ledger, str) else f"sqlite:///{ledger}"
    return [f"pool.path={pool.path}", f"run_dir={run_dir}", f"ledger_url={there}", *SMALL, *more]


@pytest.fixture(scope="module")
def expected(class_pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the run on a disk."""
    folder = tmp_path_factory.mktemp("disk")
    assert run(*_words(class_pool, folder / "run", folder / "ledger.db")) == "done"
    return digest(folder / "run")


def test_it_is_the_run_of_a_disk(
    url: str, bucket: Bucket, class_pool: Pool, expected: str, scratch: Path, doors: Doors
) -> None:
    assert run(*_words(class_pool, url, scratch / "ledger.db")) == "done"
    assert digest(url) == expected
    names = {entry.name for entry in Place.of(url).list()}
    assert {"run.json", "report.html", "rounds/r0001/batch.parquet"} <= names
    assert {"checkpoints/r0001/model.json", "checkpoints/r0001/member-0.pt"} <= names
    assert not any(name.startswith("passes/") for name in names)
    assert json.loads(doors("status", url, "--json").done().out)["state"] == "done"
    doors("export", url, "--out", "labels.parquet").done()
    assert url in doors("report", url).done().out


def test_orders_and_answers_go_through_the_bucket(
    url: str, class_pool: Pool, scratch: Path
) -> None:
    """Of folders of the run, and of an outbox of its own; each time by another process."""
    outbox = f"{url}-vendor/out"
    words = _words(
        class_pool,
        url,
        scratch / "ledger.db",
        "labeler=file_drop",
        "labeler.columns=all",
        f"labeler.outbox={outbox}",
    )
    inbox = Place.of(f"{url}/labeler/inbox")
    for _ in range(2):  # rounds
        assert run(*words) == "waiting"
        forget_copies()
        assert run(*words) == "waiting"  # and nothing is ordered twice
        there = Place.of(outbox)
        parts = [entry.name for entry in there.list() if entry.name.endswith(".jsonl")]
        for part in parts:
            lines = (there / part).read_bytes().decode().splitlines()
            ids = [json.loads(line)["sample_id"] for line in lines]
            labels = class_pool.secret_labels(np.asarray(ids))
            pairs = zip(ids, labels, strict=True)
            said = "".join(f"{one},{label}\n" for one, label in pairs)
            answers = inbox / f"{part.partition('/')[0]}/answers.csv"
            answers.put_bytes(f"sample_id,label\n{said}".encode())
        forget_copies()
    assert run(*words) == "done"
    assert len([entry for entry in Place.of(outbox).list() if "manifest" in entry.name]) == 2


def test_another_run_begins_from_its_round_0(url: str, class_pool: Pool, scratch: Path) -> None:
    assert run(*_words(class_pool, f"{url}/one", scratch / "one.db")) == "done"
    forget_copies()
    begun = f"begin_from={url}/one"
    assert run(*_words(class_pool, f"{url}/two", scratch / "two.db", begun)) == "done"
    taken = [Place.of(f"{url}/{name}/rounds/r0000/batch.parquet") for name in ("one", "two")]
    assert taken[0].read_bytes() == taken[1].read_bytes()


def test_a_ledger_cannot_lie_there(url: str, class_pool: Pool, scratch: Path, doors: Doors) -> None:
    doors.run(class_pool.path, url).refused(
        f"run_dir is {url}, a store, where no SQLite file can be", "ledger_url",
        "postgresql://user@host/database",
    )  # fmt: skip
    assert Place.of(url).list() == []


def test_no_bucket_and_no_credentials_are_said_at_once(
    bucket: Bucket, class_pool: Pool, scratch: Path, doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = f"ledger_url=sqlite:///{scratch / 'ledger.db'}"
    doors.run(class_pool.path, "s3://rayal-none/run", ledger).refused(
        "there is no bucket 'rayal-none'", "make it, or correct the URL"
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIASOMEBODYELSES000")
    doors.run(class_pool.path, f"{bucket.url}/run", ledger).refused(
        "the store refuses the credentials", "AWS_SECRET_ACCESS_KEY"
    )
    assert not (scratch / "ledger.db").exists()


def test_a_busy_store_changes_nothing(
    url: str, bucket: Bucket, class_pool: Pool, expected: str, scratch: Path
) -> None:
    bucket.fail_next(3, 503, "PUT")
    bucket.fail_next(2, 500, "GET")
    assert run(*_words(class_pool, url, scratch / "ledger.db")) == "done"
    assert digest(url) == expected
    assert sum(request.status in (500, 503) for request in bucket.requests) == 5


@pytest.mark.parametrize("when", ["before", "put", "after"])
def test_stopped_at_every_file(
    when: str,
    url: str,
    class_pool: Pool,
    expected: str,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before a file is in the store, when it is there and not here, and after: each time another
    process goes on, with no copy of what was there."""
    commit, remove = storage.commit_file, storage.remove_folder
    turns = itertools.count()
    stop = -1
    files: list[str] = []

    def stopped(act: object, last: object = None) -> object:
        here = next(turns) == stop
        if here and when == "before":
            raise Killed
        if here and when == "put" and last is not None:
            last()
            raise Killed
        done = act()
        if here:
            raise Killed
        return done

    def commit_or_die(temporary: Path, final: Path) -> None:
        files.append(final.name)
        stopped(lambda: commit(temporary, final), lambda: copies.put(temporary, final))

    monkeypatch.setattr(storage, "commit_file", commit_or_die)
    monkeypatch.setattr(
        storage, "remove_folder", lambda folder: stopped(lambda: remove(folder), lambda: None)
    )
    num_kills = 0
    state = ""
    stop = 0
    while state != "done":
        forget_copies()
        try:
            state = run(*_words(class_pool, url, scratch / "ledger.db"))
        except Killed:
            num_kills += 1
            stop = next(turns) + 1 + num_kills % 3
        assert num_kills < 300
    assert num_kills > 15
    assert digest(url) == expected
    assert not any(entry.name.startswith("passes/") for entry in Place.of(url).list())


def test_the_end_of_a_rescoring_is_known_there_too(
    url: str, class_pool: Pool, scratch: Path
) -> None:
    """Two rounds find M rows to choose from, and the third one does not."""
    num_candidates = class_pool.num_rows - 50
    words = _words(
        class_pool, url, scratch / "ledger.db", "num_rounds=4", "model=linear", "strategy=margin",
        f"strategy.num_candidates={num_candidates}", "rescoring=bounded",
    )  # fmt: skip
    words.remove("model.module.hidden=[16]")
    assert run(*words) == "done"
    forget_copies()
    last = Place.of(f"{url}/rescoring/cells-64/last.json")
    assert json.loads(last.read_bytes()) is None


@pytest.mark.ray
def test_workers_and_ranks_see_it_too(
    url: str, class_pool: Pool, scratch: Path, tmp_path: Path
) -> None:
    more = ("trainer.num_workers=1", "budget=10")
    assert run(*_words(class_pool, tmp_path / "a", tmp_path / "a.db", *more)) == "done"
    # A process and a Ray of its own: workers know the bucket from the environment Ray started in.
    words = _words(class_pool, url, scratch / "ledger.db", *RAY, *more)
    attempt = Command(words, scratch / "log.txt")
    assert attempt.wait() == 0, attempt.text()
    assert digest(url) == digest(tmp_path / "a")


def test_copies_go_with_who_made_them(url: str, class_pool: Pool, scratch: Path) -> None:
    assert run(*_words(class_pool, url, scratch / "ledger.db")) == "done"
    (folder,) = scratch.glob("rayal-copies-*")
    assert any(one.is_dir() for one in folder.iterdir())
    copies._let_go()
    assert list(folder.iterdir()) == []
