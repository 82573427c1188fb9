"""The same run on a real cluster of two nodes, by its address, also when one of them is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import Command
from nodes import TwoNodes, two_nodes
from runs import digest, picked, run

from rayal.ledger import Ledger
from rayal.pool import Pool, ingest
from rayal.rundir import RunDir

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
FAULTS = str(Path(__file__).parents[1] / "faults")
NUM_ROUNDS = 3
SYLLABLES = {
    "de": "sch ein ung ber aus ver keit ich",
    "es": "ción os as que lla dor ez ita",
    "fi": "kki nen suu lla tta yö pää vaa",
    "it": "zione etto gli ccia are ino sso che",
}


def write_words(path: Path, num_rows: int) -> Path:
    """Writes words made of four languages' syllables, a few of them of any."""
    rng = np.random.default_rng(7)
    languages = sorted(SYLLABLES)
    words, labels = [], []
    for place in rng.integers(0, len(languages), num_rows):
        other = languages[int(rng.integers(len(languages)))]
        own = SYLLABLES[languages[place]].split()
        mixed = [own, own, SYLLABLES[other].split()][: int(rng.integers(1, 4))]
        words.append("".join(str(rng.choice(some)) for some in mixed))
        labels.append(languages[place])
    pq.write_table(pa.table({"word": words, "language": labels}), path)
    return path


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Pool:
    """2,000 words in twenty shards."""
    folder = tmp_path_factory.mktemp("words")
    source = write_words(folder / "words.parquet", 2000)
    return ingest(str(source), str(folder / "pool"), label_column="language", rows_per_shard=100)


def _overrides(pool: Pool, run_dir: Path) -> list[str]:
    return [
        "experiment=language_id", "pool.recipe=null", f"pool.path={pool.path}",
        f"num_rounds={NUM_ROUNDS}", "budget=40", "predictor.batch_rows=64", "trainer.epochs=2",
        "trainer.min_steps=20", "model.transform.num_buckets=4096",
        "strategy.scorer._target_=faults.Slow", f"run_dir={run_dir}",
    ]  # fmt: skip


def _on(nodes: TwoNodes) -> list[str]:
    return [
        "engine=ray", f"engine.address={nodes.address}", "engine.num_workers=2",
        "engine.num_cpus=1", f"engine.py_modules=[{FAULTS}]", "engine.timeout_s=90",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def local_dir(words, tmp_path_factory) -> Path:
    """The run on the local engine."""
    run_dir = tmp_path_factory.mktemp("local") / "run"
    assert run(*_overrides(words, run_dir)) == "done"
    return run_dir


def _num_nodes(run_dir: Path) -> list[int]:
    """Gives how many nodes the cluster had at the end of each round's selection."""
    folder = RunDir(str(run_dir))
    with Ledger.open(folder.ledger_url, folder.read_id(), writer=False) as ledger:
        return [event.notes["hardware"]["num_nodes"] for event in ledger.events(step="selected")]


def _num_scored(run_dir: Path, t: int) -> int:
    return len(list((run_dir / "passes").glob(f"r{t:04d}-*/shard-*.arrow")))


def test_two_nodes_give_the_local_picks(words, local_dir, tmp_path):
    run_dir = tmp_path / "run"
    with two_nodes(1, tmp_path / "nodes.log") as nodes:
        command = Command([*_overrides(words, run_dir), *_on(nodes)], tmp_path / "run.log")
        assert command.wait() == 0, command.text()
    assert _num_nodes(run_dir) == [2] * NUM_ROUNDS
    assert picked(run_dir) == picked(local_dir)
    assert digest(run_dir) == digest(local_dir)


def test_a_node_lost_while_scoring_changes_nothing(words, local_dir, tmp_path):
    """One worker of two is lost with its node, and there is no room for another."""
    run_dir = tmp_path / "run"
    with two_nodes(1, tmp_path / "nodes.log") as nodes:
        command = Command([*_overrides(words, run_dir), *_on(nodes)], tmp_path / "run.log")
        assert command.until(lambda: _num_scored(run_dir, 1) >= 3), command.text()
        nodes.lose_one()
        assert _num_scored(run_dir, 1) < len(words.shards)  # it was lost in the scoring phase
        assert nodes.num_alive() == 1
        assert command.wait() == 0, command.text()
    assert _num_nodes(run_dir) == [2, 1, 1]
    assert picked(run_dir) == picked(local_dir)
    assert digest(run_dir) == digest(local_dir)
