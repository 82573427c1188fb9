"""A trial of real parts on a small pool: what it leaves, and that it sees what it should."""

from __future__ import annotations

import mmap
import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from runs import loop_of

from rayal.engine.local import LocalEngine
from rayal.errors import ConfigError, RayalError
from rayal.plan.apart import apart
from rayal.plan.asked import Asked, asked_of
from rayal.plan.measured import Measured, Parts
from rayal.plan.stages import Stages
from rayal.plan.trial import measure
from rayal.plan.trial_labels import made_up
from rayal.plan.trial_passes import Passes
from rayal.plan.watch import memory_of
from rayal.pool import Pool
from rayal.rundir import RunDir
from rayal.types import Vocabulary


def _parts(pool: Pool, folder: Path, *more: str) -> Parts:
    run, _ = loop_of(
        f"pool.path={pool.path}", "model=mlp", "model.module.hidden=[16]", "num_rounds=3",
        "budget=40", "predictor.batch_rows=64", "trainer.min_steps=20", f"run_dir={folder}/run",
        *more,
    )  # fmt: skip
    return Parts.of(run)


def _measured(pool: Pool, folder: Path, *more: str) -> Measured:
    found = measure(_parts(pool, folder, *more), str(folder / "trial"), 2.0)
    assert list(folder.iterdir()) == []  # neither the trial's files, nor a run's
    return found


def test_a_trial_sees_every_stage(class_pool: Pool, tmp_path: Path) -> None:
    found = _measured(class_pool, tmp_path, "strategy=k_center")
    assert found.widths == {"embeds": (16, 64)}
    assert found.score.wall(5, class_pool.num_rows) > 0
    assert found.test.wall(5, class_pool.num_test_rows) > 0
    assert found.trains[0].wall(0, 200, 40) > 0
    assert found.cold.wall(5, class_pool.num_rows) > 0
    assert found.fetch.wall(1) > 0
    assert found.labels.order.wall(40) > 0
    assert found.selected[-1].budget == 40
    # Without a scorer all rows are candidates, but for those that the trial has labelled.
    assert found.selected[-1].num_candidates == class_pool.num_rows - 40
    assert found.num_labels == 40
    assert found.checkpoint_bytes > 8 * 16 * 4
    assert 8 * 4 <= found.read_bytes <= found.row_bytes < 300
    assert {"start", "cold", "select", "fetch", "label", "train", "score", "test"} <= set(
        found.peaks
    )
    assert found.peaks["score"]["driver"].own > 10 << 20
    assert found.notes == ()


def test_numbers_and_several_labels(
    number_pool: Pool, multilabel_pool: Pool, tmp_path: Path
) -> None:
    number = ("model.kind=number", "model.transform.column=features", "trainer.num_members=2")
    (tmp_path / "a").mkdir()
    found = _measured(number_pool, tmp_path / "a", *number, "strategy=igs")
    assert found.selected[-1].wall_s > 0
    (tmp_path / "b").mkdir()
    found = _measured(multilabel_pool, tmp_path / "b", "model.kind=multilabel")
    assert found.score.wall(4, multilabel_pool.num_rows) > 0


def test_made_up_labels_are_of_the_kind() -> None:
    words = Vocabulary("class", ("a", "b", "c"))
    assert set(made_up(words, 60, 0)) == {"a", "b", "c"}
    assert made_up(words, 5, 7) == made_up(words, 5, 7)
    several = made_up(Vocabulary("multilabel", ("a", "b")), 4, 0)
    assert all(one in (["a"], ["b"]) for one in several)
    assert all(isinstance(one, float) for one in made_up(Vocabulary("number"), 4, 0))


def test_a_vendor_is_not_asked(class_pool: Pool, tmp_path: Path) -> None:
    outbox = tmp_path / "outbox"
    words = (
        "labeler=file_drop",
        "labeler.columns=all",
        f"labeler.outbox={outbox}",
        f"labeler.inbox={tmp_path}/inbox",
    )
    parts = _parts(class_pool, tmp_path, *words)
    found = measure(parts, str(tmp_path / "trial"), 0.1)
    assert "FileDrop was not asked" in found.notes[0]
    assert not outbox.exists()
    assert found.labels.order.wall(40) == 0.0


class _Whole:
    """A trainer of the user's own, that states no work."""

    def __init__(self, inner: object) -> None:
        self.inner = inner
        self.num_workers, self.use_gpu, self.num_threads = 0, False, 1

    def fit(self, labels: Any, *arguments: object) -> object:
        time.sleep(0.05 * labels.num_rows)
        return self.inner.fit(labels, *arguments)  # type: ignore[attr-defined]


def test_a_trainer_that_states_no_work_is_tried_as_it_is(class_pool: Pool, tmp_path: Path) -> None:
    parts = _parts(class_pool, tmp_path)
    found = measure(replace(parts, trainer=_Whole(parts.trainer)), str(tmp_path / "t"), 0.1)  # type: ignore[arg-type]
    assert "_Whole does not state its work" in found.notes[0]
    grown_s = found.trains[0].wall(0, 0, 120) - found.trains[0].wall(0, 0, 10)
    assert 2.0 < grown_s < 10.0  # 0.05 s a label


def test_what_a_part_refuses_is_refused(class_pool: Pool, tmp_path: Path) -> None:
    parts = _parts(class_pool, tmp_path, "strategy=bald")  # draws of one member
    with pytest.raises(RayalError, match="draws"):
        measure(parts, str(tmp_path / "trial"), 0.1)
    assert not (tmp_path / "trial").exists()


def test_a_proxy_is_trained_and_stands_before_the_model(class_pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    words = (
        "proxy=linear",
        "proxy.num_rows=200",
        "strategy=badge",
        "proxy.scorer={_target_:rayal.scorers.margin.Margin}",
    )
    found = _measured(class_pool, tmp_path / "a", *words)
    assert len(found.trains) == 2
    assert found.selected[-1].num_candidates <= 200
    assert found.score.wall(5, class_pool.num_rows) > 0


class _Broken(LocalEngine):
    def open(self, *parts: object) -> None:
        raise ConfigError("no engine today; try tomorrow")


def test_in_a_process_of_its_own(class_pool: Pool, tmp_path: Path) -> None:
    found, exit_s = apart(measure, _parts(class_pool, tmp_path), str(tmp_path / "trial"), 0.1)
    assert found.score.wall(5, class_pool.num_rows) > 0
    assert exit_s >= 0
    broken = replace(_parts(class_pool, tmp_path), engine=_Broken())
    with pytest.raises(ConfigError, match="no engine today; try tomorrow"):
        apart(measure, broken, str(tmp_path / "trial"), 0.1)


def test_a_trial_takes_little_of_a_small_disk(
    class_pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = Passes(_parts(class_pool, tmp_path), RunDir(str(tmp_path)), Stages())
    for free, rows in ((10**15, 2**29 // 16), (8 * 16_000, 1_000), (0, 64)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        assert passes.most_rows() == rows


def test_what_the_process_raises_is_one_line() -> None:
    with pytest.raises(RayalError, match=r"^the plan's trial failed: ZeroDivisionError: .*$"):
        apart(divmod, 1, 0)
    with pytest.raises(RayalError, match=r"^the plan's trial failed: TypeError: .*$"):
        apart(setattr, None, "a\nb", "a\nb", "c")


def test_a_process_that_dies_is_said_to() -> None:
    with pytest.raises(RayalError, match=r"exit code 3: it said nothing; start without a plan"):
        apart(os._exit, 3)


def test_what_cannot_be_taken_to_the_process_is_said() -> None:
    with pytest.raises(RayalError, match=r"a part of this run cannot be taken .*\(TypeError: "):
        apart(print, threading.Lock())


def test_what_is_asked_for(class_pool: Pool, tmp_path: Path) -> None:
    run, _ = loop_of(
        f"pool.path={class_pool.path}", "engine=ray", "engine.num_workers=3", "budget=30",
        "labeler.price_minor=7", f"run_dir={tmp_path}/run",
    )  # fmt: skip
    asked = asked_of(run)
    assert (asked.num_rows, asked.num_shards) == (class_pool.num_rows, 5)
    assert (asked.num_workers, asked.in_flight, asked.price_minor) == (3, 2, 7)
    assert not asked.on_cluster
    run.engine.address = "head:6379"
    assert asked_of(run).on_cluster
    assert (asked.keep, asked.selector, asked.scorer) == (100_000, "TopK", "Margin")


def test_what_a_rescoring_would_keep(class_pool: Pool, tmp_path: Path) -> None:
    def asked(*words: str) -> Asked:
        where = f"pool.path={class_pool.path}", f"run_dir={tmp_path}/run"
        return asked_of(loop_of(*where, "rescoring=bounded", *words)[0])

    rows = sum(shard.num_rows for shard in class_pool.shards)
    assert (asked().rescoring, asked().kept_bytes) == ("", 14 * rows)
    for words, why in (
        ("strategy=entropy", "Entropy states no bound"),
        ("proxy=linear", "a proxy chooses the rows"),
        ("rescoring.max_gib=0.000001", "more than rescoring.max_gib=1e-06"),
    ):
        found = asked(words)
        assert why in str(found.rescoring)
        assert found.kept_bytes == 0
    assert "no linear head" in _measured(class_pool, tmp_path, "rescoring=bounded").no_bound


def test_memory_of_this_process() -> None:
    before = memory_of()
    # Of the system itself: an allocator may give what an earlier test had.
    block = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.write(b"x" * len(block))
    assert memory_of().own - before.own > 60 << 20
