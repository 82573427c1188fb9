"""A run with a real Label Studio server, while both are killed: every row is there once, every
answer comes, the annotator who guesses is not heard, and what was bought trains a model.

Fashion-MNIST where it can be had, else vectors. RAYAL_LABEL_STUDIO_ROWS, _KILLS, _SINGLES: how many
rows a round has, how often rayal is killed, and how many answers each person gives one by one.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from commands import Command
from label_studio_server import TOKEN, People, RealServer, real
from runs import picked, plain_config, write_embeddings

from rayal.cli.config import build
from rayal.errors import PoolError
from rayal.ledger import Ledger
from rayal.pool import Pool, ingest
from rayal.rundir import RunDir

HOME = os.environ.get("RAYAL_LABEL_STUDIO")
ROWS = int(os.environ.get("RAYAL_LABEL_STUDIO_ROWS", "300"))
KILLS = int(os.environ.get("RAYAL_LABEL_STUDIO_KILLS", "6"))
SINGLES = int(
    os.environ.get("RAYAL_LABEL_STUDIO_SINGLES", "60")
)  # answers a person gives one by one
ROUNDS, OVERLAP, PRICE, ENV = 2, 3, 2, "RAYAL_TEST_STUDIO"
BAD = 2  # the number of the one who guesses
pytestmark = [
    pytest.mark.skipif(not HOME, reason="make label-studio-test installs and starts a real server"),
    pytest.mark.timeout(7200),
    pytest.mark.xdist_group("label_studio"),
]


class Worker:
    """Somebody who answers what is there, `accuracy` of it rightly: some one by one, then many."""

    def __init__(self, people: People, pool: Pool, accuracy: float, seed: int) -> None:
        self.people, self.pool, self.accuracy = people.sign_up(), pool, accuracy
        self.seed, self.singles = seed, SINGLES
        self.id = self.people.ids[0]

    def work(self) -> None:
        for project in self.people._done("GET", "/api/projects")["results"]:
            tasks = self.people.tasks(project["id"])
            mine = {
                task["id"]: self._label(task["meta"]["sample_id"])
                for task in tasks
                if all(self._who(one) != self.id for one in task["annotations"])
            }
            for task in list(mine)[: self.singles]:
                self.people.say(task, [mine.pop(task)])
                self.singles -= 1
            if mine:
                self.people.say_all(project["id"], mine)

    def _label(self, sample_id: int) -> str:
        draws = random.Random(f"{self.seed}/{sample_id}")
        (truth,) = self.pool.secret_labels(np.array([sample_id]))
        classes = [str(one) for one in self.pool.vocabulary.classes]
        return str(truth) if draws.random() < self.accuracy else draws.choice(classes)

    @staticmethod
    def _who(annotation: dict[str, Any]) -> int:
        who = annotation["completed_by"]
        return int(who["id"] if isinstance(who, dict) else who)


@pytest.fixture
def pool_words(tmp_path: Path) -> tuple[Pool, list[str]]:
    """The pool, and what a run says of it."""
    try:
        pool = ingest("recipe:fashion_mnist", str(tmp_path / "pool"))
    except PoolError:  # it comes as a Debian package, which not every machine can get
        source = write_embeddings(tmp_path / "rows.parquet", 3 * ROUNDS * ROWS)
        pool = ingest(str(source), str(tmp_path / "pool"), label_column="label")
        return pool, ["model=linear", "labeler.columns=[embedding]", "labeler.kind=table"]
    words = ["model=linear", "model.transform.column=image", "labeler.columns=[image]"]
    return pool, [*words, "labeler.kind=image", "labeler.show=image", "labeler.pixels=[28,28]"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RealServer]:
    folder = tmp_path / "server"
    folder.mkdir()
    with real(Path(str(HOME)).absolute(), folder) as running:
        yield running


def test_whatever_is_killed_every_row_is_there_once(
    server: RealServer, pool_words: tuple[Pool, list[str]], tmp_path: Path, monkeypatch
):
    monkeypatch.setenv(ENV, TOKEN)
    rng = random.Random(0)
    pool, about = pool_words
    began_s = time.monotonic()
    people = People(server.url, TOKEN)
    workers = [Worker(people, pool, share, seed) for seed, share in enumerate((0.95, 0.9, 0.25))]
    words = [
        *about, "predictor.batch_rows=256", "trainer.epochs=3",
        "consensus.quarantine={_target_: rayal.consensus.Quarantine, num_reorders: 0}",
        f"num_rounds={ROUNDS}", f"budget={ROWS}", f"pool.path={pool.path}", "poll_s=0.3",
        f"run_dir={tmp_path / 'run'}", "labeler=label_studio", f"labeler.url={server.url}",
        f"labeler.token_env={ENV}",
        f"labeler.overlap={OVERLAP}", f"labeler.price_minor={PRICE}", "labeler.in_doubt_s=8",
        f"labeler.rows_per_chunk={max(ROWS // 10, 10)}",
    ]  # fmt: skip
    ended = threading.Event()

    def at_work(one: Worker) -> None:
        while not ended.wait(0.5):
            try:
                one.work()
            except (httpx.HTTPError, AssertionError):  # the server is away
                time.sleep(0.5)

    threads = [threading.Thread(target=at_work, args=(one,), daemon=True) for one in workers]
    num_kills, num_server_kills, code = 0, 0, -1
    for thread in threads:
        thread.start()
    try:
        while code:
            command = Command(words, tmp_path / "log")
            before = _num_tasks(people)
            if num_server_kills < 2 and command.until(lambda n=before: _num_tasks(people) > n):
                server.kill()
                num_server_kills += 1
                time.sleep(rng.random())
                server.start()
            if num_kills < KILLS:
                deadline = time.monotonic() + 3.0 + 6.0 * rng.random()
                command.until(lambda end=deadline: time.monotonic() > end)
                if command.process.poll() is None:
                    command.kill()
                    num_kills += 1
                    continue
            code = command.process.wait(timeout=3600)
            assert code == 0 or "the same command again" in command.text(), command.text()
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    for one in workers:
        one.work()  # what was still open

    samples = [one for batch in picked(tmp_path / "run") for one in batch]
    tasks = [
        task
        for p in people._done("GET", "/api/projects")["results"]
        for task in people.tasks(p["id"])
    ]
    there = Counter(task["meta"]["sample_id"] for task in tasks)
    assert there == Counter(samples), "rows are there twice, or are not"
    assert len(samples) == ROUNDS * ROWS
    truth = {
        (str(said["id"]), task["meta"]["sample_id"], said["result"][0]["value"]["choices"][0])
        for task in tasks
        for said in task["annotations"]
    }
    assert len(truth) == OVERLAP * ROUNDS * ROWS
    folder = RunDir(str(tmp_path / "run"))
    labeler = build(plain_config(*words)).labeler
    labeler.bind(None, None, str(tmp_path / "other"))
    with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
        told = {
            (one.event.event_id, one.event.sample_id, str(one.event.value))
            for one in ledger.labels()
        }
        spend = ledger.spend()
        orders = [event.result for event in ledger.events(step="ordered")]
        snapshot = ledger.event(ROUNDS - 1, "labelled")
        tests = [event.result.value for event in ledger.events(step="tested")]
        wrong = ledger.problems()
    assert told <= truth
    assert {sample for _, sample, _ in told} == set(samples)
    assert spend == {"labels": len(samples), "amount_minor": PRICE * len(told)}
    for order in orders:
        assert sum(len(labeler.held(ack.key)) for ack in order.chunks) == ROWS
    assert num_kills > 0  # a quick run has fewer than were meant
    assert num_server_kills == 2
    assert wrong == []
    # The one who guesses is found out, and what the others said is learnt from.
    assert snapshot.notes["annotators"]["quarantined"] == [str(workers[BAD].id)]
    table = folder.read(snapshot.result)
    labels = [str(one) for one in table.column("label").to_pylist()]
    true = pool.secret_labels(table["sample_id"].to_numpy())
    right = np.mean([a == str(b) for a, b in zip(labels, true, strict=True)])
    assert len(labels) == len(samples)
    assert right > 0.9
    print(
        f"{len(samples)} rows, {len(truth)} answers, {len(told)} in the ledger; rayal was killed "
        f"{num_kills} times, the server {num_server_kills} times; labels right {right:.4f}; tests "
        f"{', '.join(f'{one:.4f}' for one in tests)}; {time.monotonic() - began_s:.0f} s"
    )


def _num_tasks(people: People) -> int:
    time.sleep(0.05)
    try:
        reply = people.http.get("/api/projects", params={"include": "id,task_number"})
        return sum(one["task_number"] or 0 for one in reply.json()["results"])
    except httpx.HTTPError:
        return 0
