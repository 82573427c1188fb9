"""A plan added up by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from plans import ASKED, MEASURED, KCenter, planned

from rayal.plan.estimate import select_seconds
from rayal.plan.laws import Law
from rayal.plan.measured import Selected
from rayal.plan.survive import shards_hit
from rayal.plan.watch import Memory
from rayal.selectors.top_k import TopK
from rayal.stopping.rules import MaxAmount, WallTime


def _walls(name: str, **changed: object) -> list[float]:
    return [phase.wall_s for phase in planned(**changed).of(name)]  # type: ignore[arg-type]


def test_every_phase_of_every_round() -> None:
    hit = shards_hit(10, 100)
    assert _walls("start") == [7.0]  # 3 until here, 4 around
    assert _walls("score") == pytest.approx([1.0, 13.0, 13.0])  # cold: 0.1 a shard; 1 + 2 + 10
    assert _walls("select") == pytest.approx([0.25, 2.0, 2.0])
    assert _walls("fetch") == pytest.approx([hit * 0.125] * 3)
    assert _walls("order") == pytest.approx([hit * 0.5 + 1.0] * 3)
    assert _walls("label") == pytest.approx([2.0, 2.1, 2.2])  # earlier answers once more
    assert _walls("train") == pytest.approx([4.0, 2.0, 2.0])  # 1 + 10 steps; the first imports
    assert _walls("test") == pytest.approx([5.5] * 3)
    assert _walls("files") == pytest.approx([3.5, 4.5, 5.5])
    plan = planned()
    assert plan.wall_s == pytest.approx(sum(phase.wall_s for phase in plan.phases))
    assert plan.cpu_hours * 3_600 == pytest.approx(sum(phase.cpu_s for phase in plan.phases))
    assert plan.to_json()["wall_s"] == plan.wall_s


def test_bytes_and_disk() -> None:
    plan = planned()
    scored = plan.of("score")
    assert [phase.read_bytes for phase in scored] == [80_000, 200_000, 200_000]
    # M (1 + ln(N / M)), nearly: shard k of ten leaves M / (k - 1) rows of 16 + 32 bytes.
    left = 1_000 + 1_000 * sum(1 / k for k in range(1, 10))
    assert scored[1].written_bytes == pytest.approx(left * 48)
    assert plan.disk["slices of one pass"] == pytest.approx(left * 48)
    assert plan.disk["checkpoints"] == 15_000
    assert plan.disk["ledger"] == 94_000
    assert plan.disk["batches and snapshots"] == 300 * 100 + (100 + 200 + 300) * 50
    assert plan.disk_bytes == pytest.approx(left * 48 + 15_000 + 94_000 + 60_000)


def test_what_a_rescoring_keeps_is_on_the_disk() -> None:
    of_a_run = {"rescoring": "", "kept_bytes": 140_000}
    plan = planned(**of_a_run)
    assert plan.disk["rescoring"] == 140_000
    assert plan.disk_bytes == pytest.approx(planned().disk_bytes + 140_000)
    (note,) = plan.notes
    assert note.startswith("rescoring is planned as if every pass scored all rows")
    assert "rescoring" not in planned(**of_a_run, num_rounds=1).disk  # no model scores
    assert "rescoring" not in planned().disk
    assert planned().notes == ()


def test_a_rescoring_of_no_use_keeps_nothing() -> None:
    without = replace(MEASURED, no_bound="the model is no linear head")
    plan = planned(measured=without, rescoring="", kept_bytes=140_000)
    assert "rescoring" not in plan.disk
    assert plan.notes == ("rescoring has no use here: the model is no linear head",)
    plan = planned(rescoring="Entropy states no bound")
    assert plan.notes == ("rescoring has no use here: Entropy states no bound",)


def test_all_rows_are_slices_without_m() -> None:
    assert planned(keep=None).disk["slices of one pass"] == 10_000 * 48


def test_workers_share_a_pass_among_the_cores() -> None:
    # Measured with one: 13 s of wall, 23 s of CPU. Two workers, two cores: CPU bounds it.
    assert _walls("score", num_workers=2)[1] == pytest.approx(11.5)
    # Four workers have no more cores than two; ten shards keep two of them waiting in the end.
    assert _walls("score", num_workers=4)[1] == pytest.approx(11.5 * 12 / 10)


def test_what_was_measured_with_the_workers_is_taken_as_it_is() -> None:
    measured = replace(MEASURED, num_workers=2)
    assert _walls("score", measured=measured, num_workers=2)[1] == pytest.approx(13.0)


def test_a_proxy_trains_too_and_lets_few_rows_through() -> None:
    proxied = replace(MEASURED, trains=MEASURED.trains * 2)
    assert _walls("train", measured=proxied) == pytest.approx([6.0, 4.0, 4.0])
    plan = planned(measured=proxied, proxy_rows=2_000)
    # Of the proxy's pass 2,000 (1 + H(9) - 1) rows of 16 bytes, of the model's as many as above but
    # from ten shards of 200 rows.
    proxy_left = sum(min(1_000, 2_000 / max(1, k)) if k > 2 else 1_000 for k in range(10))
    left = sum(200 if k * 200 <= 1_000 else 200 * 1_000 / (k * 200) for k in range(10))
    assert plan.disk["slices of one pass"] == pytest.approx(proxy_left * 16 + left * 48)


def test_a_run_that_goes_on_has_no_rounds_that_are_done() -> None:
    plan = planned(first_round=2, test_budget=40)
    assert {phase.round for phase in plan.phases} == {-1, 2}
    assert (plan.labels.number, plan.labels.test) == (100, 0)  # the test's were ordered first
    assert [phase.wall_s for phase in plan.of("train")] == pytest.approx([4.0])


def test_the_spend_and_the_rule_that_ends_it() -> None:
    plan = planned(price_minor=5, test_budget=40)
    assert plan.labels.amount_minor == (300 + 40) * 5
    stopped = planned(price_minor=5, stopping=MaxAmount(1_100))
    assert stopped.num_rounds == 2
    assert stopped.labels.number == 200
    assert "more than the limit of 1100" in stopped.stops
    assert {phase.round for phase in stopped.phases} == {-1, 0, 1}
    # Each round takes more than half a minute: before the third a minute is over.
    assert planned(stopping=WallTime(1 / 60)).num_rounds == 2


def test_the_last_round_may_be_smaller() -> None:
    plan = planned(shard_rows=(25,) * 10)
    assert plan.labels.number == 250
    assert _walls("label", shard_rows=(25,) * 10) == pytest.approx([2.0, 2.1, 1.0 + 2 * 0.05])


def test_gpu_hours_are_those_of_passes_and_of_a_training_on_gpus() -> None:
    plan = planned(num_workers=2, gpus_a_worker=0.5)
    gpu_s = sum(phase.gpu_s for phase in plan.phases)
    walls = [*plan.of("score")[1:], *plan.of("test")]
    assert gpu_s == pytest.approx(sum(phase.wall_s for phase in walls))
    assert plan.gpu_hours == pytest.approx(gpu_s / 3_600)


# ------------------------------------------------------------------------------------- selectors


def test_what_was_selected_at_full_size_is_not_scaled() -> None:
    assert select_seconds(TopK(), MEASURED.selected, 1_000, 100, 0) == 2.0


def test_a_selector_that_states_its_work_is_scaled_by_it() -> None:
    center = KCenter()
    small, large = center.work(1_000, 100, 8), center.work(100_000, 1_000, 8)
    tried = [Selected(1_000, 100, small.amount * 1e-6, 1.0)]
    found = select_seconds(center, tried, 100_000, 1_000, 8)
    assert found == pytest.approx(large.amount * 1e-6, rel=0.02)


class _Silent:
    needs = ("embeds",)


def test_any_other_selector_grows_by_the_power_that_it_shows() -> None:
    tried = [Selected(1_000, 10, 0.01, 0.0), Selected(1_000, 100, 1.0, 0.0)]  # B squared
    found = select_seconds(_Silent(), tried, 4_000, 200, 8)  # type: ignore[arg-type]
    assert found == pytest.approx(4 * 4.0)
    plan = planned(
        selector=_Silent(), measured=replace(MEASURED, selected=tuple(tried)), budget=200
    )
    assert "TopK is estimated" in " ".join(plan.notes)
    assert planned(selector=_Silent()).notes == ()  # it was tried at full size


# --------------------------------------------------------------------------------------- memory


def test_a_driver_begins_with_what_this_process_has() -> None:
    (driver,) = planned().processes
    report_bytes = 10 * 1_000
    assert driver.role == "driver"
    assert driver.peak_bytes == (310 << 20) + (90 << 20) + report_bytes


def test_processes_share_the_pages_of_libraries() -> None:
    peaks = {
        "score": {"driver": Memory(200 << 20, 80 << 20), "scorer": Memory(300 << 20, 90 << 20)}
    }
    measured = replace(MEASURED, peaks=peaks, num_workers=2)
    driver, scorer = planned(measured=measured, num_workers=2).processes
    assert (driver.number, scorer.number) == (1, 2)
    # 60 MiB are libraries', mapped by three; other files (20, 30 MiB) are its own.
    assert driver.peak_bytes == (210 << 20) + (20 << 20) + (20 << 20) + 10_000
    assert scorer.peak_bytes == (300 << 20) + (20 << 20) + (30 << 20)


def test_a_scorer_that_the_trial_had_none_of_is_as_large_as_its_own_process() -> None:
    _, scorer = planned(num_workers=2).processes
    assert scorer.peak_bytes == (300 << 20) + (20 << 20) + (30 << 20)


def test_rows_that_a_worker_holds_beyond_the_trial() -> None:
    (usual,) = planned().processes
    (larger,) = planned(shard_rows=(10_000,), keep=4_000).processes
    # 8,000 in place of 1,000 rows of 48 bytes, twice; one report in place of ten.
    assert larger.peak_bytes - usual.peak_bytes == 7_000 * 48 * 2 - 9_000


def test_what_a_selection_holds() -> None:
    held = KCenter().work(5_000, 100, 8).held_bytes - KCenter().work(1_000, 100, 8).held_bytes
    peaks = {"select": {"driver": Memory(300 << 20, 90 << 20)}}
    measured = replace(MEASURED, peaks=peaks)
    (usual,) = planned(measured=measured).processes
    (larger,) = planned(measured=measured, selector=KCenter(), keep=5_000).processes
    assert held > 0
    assert larger.peak_bytes - usual.peak_bytes == pytest.approx(held)


def test_asked_counts() -> None:
    assert ASKED.num_rows == 10_000
    assert ASKED.num_labels(1) == 200
    assert Law((1.0,), (1.0,)).spread == 0.0
