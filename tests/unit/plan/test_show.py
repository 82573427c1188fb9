"""A plan as a person reads it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from plans import ASKED, MEASURED, planned

from rayal.plan.show import short, size, table
from rayal.stopping.rules import MaxAmount


def test_the_table() -> None:
    lines = table(planned(price_minor=5), ASKED).splitlines()
    assert lines[0] == (
        "10,000 rows in 10 shards, 500 test rows; Margin + TopK, M = 1,000, 100 a round; "
        "this process"
    )
    by_name = {line.split()[0]: line.split() for line in lines if line}
    assert by_name["score"][:4] == ["score", "1.0s", "13.0s", "27.0s"]
    assert by_name["train"][:4] == ["train", "4.0s", "2.0s", "8.0s"]
    assert by_name["start"][:3] == ["start", "7.0s", "7.0s"]
    assert by_name["sum"][1] == "1:44"
    assert by_name["memory"] == ["memory", "driver", "0.39", "GiB", "at", "most", "(score)"]
    assert "labels   100 a round, 300 in all: 5.00 USD a round, 15.00 USD in all" in "\n".join(
        lines
    )
    assert lines[-1].endswith("waits for answers are not in here")


def test_what_ends_it_and_what_is_estimated() -> None:
    plan = planned(
        price_minor=5, stopping=MaxAmount(1_100), measured=replace(MEASURED, notes=("so",))
    )
    assert "ends     after round 1: the labels cost 1000 minor units" in table(plan, ASKED)
    assert table(plan, ASKED).endswith("note     so")
    assert short(plan, ASKED)[-1].startswith("plan: it will end after round 1: the labels cost")


def test_the_short_form() -> None:
    assert short(planned(price_minor=5), ASKED) == [
        "plan: 3 rounds in about 1:44 (score 27.0s, order 18.0s, test 16.5s); 300 labels, "
        "15.00 USD",
        "plan: memory driver 0.39 GiB; disk 353 kB",
    ]


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 kB"),
        (1_234, "1 kB"),
        (16e6, "16.0 MB"),
        (812.4e6, "812 MB"),
        (4.1e11, "410 GB"),
        (2e12, "2.0 TB"),
    ],
)
def test_sizes(num_bytes: float, text: str) -> None:
    assert size(num_bytes) == text
