"""Which shards are under way, and which of them may be overtaken."""

from __future__ import annotations

from rayal.engine.under_way import LATE_S, LATE_TIMES, UnderWay
from rayal.pool import Shard


def _state(num_shards: int) -> UnderWay:
    return UnderWay([Shard("pool", s, f"s{s}", 1, 1, "", s, s, s) for s in range(num_shards)])


def _begin(state: UnderWay, call: str, worker: int, now_s: float) -> Shard:
    shard = state.todo.popleft()
    state.begin(call, worker, shard, now_s)
    return shard


def test_late_is_more_than_twice_what_is_usual_and_the_longest_comes_first() -> None:
    state = _state(4)
    slow, slower = _begin(state, "a", 0, 3.0), _begin(state, "b", 1, 4.0)
    _begin(state, "c", 2, 4.0)
    assert state.late(1e9, 5) == []  # nobody has answered: nothing is usual
    assert state.end("c", 14.0)[1:] == (Shard("pool", 2, "s2", 1, 1, "", 2, 2, 2), True)
    assert state.late(3.0 + LATE_TIMES * 10.0, 5) == []
    assert state.late(3.1 + LATE_TIMES * 10.0, 5) == [slow]
    assert state.late(4.1 + LATE_TIMES * 10.0, 5) == [slow, slower]
    assert state.late(4.1 + LATE_TIMES * 10.0, 1) == [slow]
    state.begin("again", 2, slow, 30.0)
    assert state.late(1e9, 5) == [slower]  # two have the other one: a third would be too many


def test_what_takes_no_time_is_not_late_at_once() -> None:
    state = _state(2)
    _begin(state, "a", 0, 0.0)
    _begin(state, "b", 1, 0.0)
    state.end("b", 0.01)
    assert state.late(LATE_S, 5) == []
    assert len(state.late(LATE_S + 0.1, 5)) == 1


def test_the_first_answer_is_the_one_and_a_lost_copy_is_not_done_again() -> None:
    state = _state(1)
    shard = _begin(state, "a", 0, 0.0)
    state.begin("b", 1, shard, 9.0)
    assert not state.is_over
    state.lose(0)
    assert list(state.todo) == []  # worker 1 has it
    state.begin("c", 2, shard, 10.0)
    assert state.end("b", 11.0) == (1, shard, True)
    assert state.is_over
    assert state.overtaken() == [2]
    assert state.end("c", 12.0) == (2, shard, False)
    assert state.overtaken() == []


def test_what_a_lost_worker_alone_had_is_to_do_again() -> None:
    state = _state(2)
    _begin(state, "a", 0, 0.0)
    _begin(state, "b", 0, 0.0)
    state.lose(0)
    assert sorted(shard.index for shard in state.todo) == [0, 1]
    assert state.load[0] == 0
    assert state.waiting == [0, 1]


def test_shards_of_both_splits_may_have_one_index() -> None:
    shards = [Shard(split, 0, f"{split}/s0", 1, 1, "", 0, 0, 0) for split in ("pool", "test")]
    state = UnderWay(shards)
    for place, shard in enumerate(shards):
        assert _begin(state, shard.split, place, 0.0) == shard
    assert state.end("pool", 1.0) == (0, shards[0], True)
    assert not state.is_over
    assert state.end("test", 1.0) == (1, shards[1], True)
    assert state.is_over
