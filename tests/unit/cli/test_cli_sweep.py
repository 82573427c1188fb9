"""What the runs of a sweep are called."""

from __future__ import annotations

import pytest

from rayal.cli.sweep import name_part


@pytest.mark.parametrize(
    ("words", "keys", "part"),
    [
        (["budget=10", "seed=1"], {"budget", "seed"}, "_budget-10"),
        (["seed=1", "strategy=margin", "experiment=digits"], {"seed", "strategy"}, ""),
        (["budget=10"], set(), ""),
        (
            ["trainer.epochs=3", "model=mlp", "budget=10"],
            {"trainer.epochs", "model"},
            "_model-mlp_trainer.epochs-3",
        ),
        (["+strategy.scorer.beta=0.5"], {"+strategy.scorer.beta"}, "_strategy.scorer.beta-0.5"),
        (
            ["strategy@cold_start=k_center"],
            {"strategy@cold_start"},
            "_strategy@cold_start-k_center",
        ),
    ],
)
def test_a_name_says_what_was_swept_over(words: list[str], keys: set[str], part: str) -> None:
    assert name_part(words, keys) == part
    assert name_part(words[::-1], keys) == part


def test_what_no_file_can_be_called_has_a_hash_of_its_own() -> None:
    values = ["a/b", "a:b", "[1,2]", "[1, 2]", "'a b'", "../..", "x" * 300, "x" * 301, ""]
    parts = [name_part([f"loss={value}"], {"loss"}) for value in values]
    assert len({part.lower() for part in parts}) == len(values)
    for part in parts:
        assert "/" not in part
        assert len(part) < 60


def test_many_keys_make_a_name_that_still_is_one() -> None:
    keys = [f"trainer.key_{place}" for place in range(40)]
    first, second = (
        name_part([*(f"{key}=1" for key in keys[:-1]), f"{keys[-1]}={last}"], set(keys))
        for last in "12"
    )
    assert first != second
    assert max(len(first), len(second)) < 150
