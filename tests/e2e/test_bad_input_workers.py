"""Workers that fail: no memory, numbers that are none, modules that they cannot import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from doors import Doors, contents, small
from runs import write_embeddings

from rayal.pool import Pool, ingest

RAY = ["engine=ray", "engine.num_workers=1", "engine.num_cpus=0.25"]


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """300 rows in three shards and no test rows: what fails, fails while scoring."""
    source = write_embeddings(tmp_path / "rows.parquet", 300)
    return ingest(
        str(source),
        str(tmp_path / "pool"),
        label_column="label",
        test_share=0.0,
        rows_per_shard=100,
    )


def _fails_then_goes_on(
    doors: Doors,
    pool: Pool,
    flag: Path,
    words: list[str],
    *parts: str,
    engine: tuple[str, ...] = (),
) -> None:
    """The fault is there as long as its file: without it, the same command goes on."""
    doors.run(pool, "plain", *words).done()
    doors.run(pool, "r", *words, *engine, "num_rounds=1").done()
    flag.write_text("")
    doors.run(pool, "r", *words, *engine).refused(*parts)
    before = contents(doors.folder / "r" / "rounds" / "r0000")
    status = json.loads(doors("status", "r", "--json").done().out)
    assert status["state"] == "failed"
    assert [one["num_labels"] for one in status["rounds"]] == [20]
    flag.unlink()
    doors.run(pool, "r", *words).done()
    assert contents(doors.folder / "r" / "rounds" / "r0000") == before
    assert doors.digest("r") == doors.digest("plain")


def _hungry(flag: Path, by: str) -> list[str]:
    module = "model.module"
    return [f"{module}._target_=faults.Hungry", f"+{module}.flag={flag}", f"+{module}.by={by}"]


@pytest.mark.parametrize("by", ["torch", "python"])
def test_no_memory_left(doors: Doors, pool: Pool, by: str) -> None:
    flag = doors.folder / "flag"
    _fails_then_goes_on(
        doors, pool, flag, _hungry(flag, by),
        "shard 0: no memory left with predictor.batch_rows=64", "give workers more memory",
        "rayal does not do so by itself",
    )  # fmt: skip


@pytest.mark.ray
def test_no_memory_left_in_a_ray_worker(small_ray, doors: Doors, pool: Pool) -> None:
    flag = doors.folder / "flag"
    _fails_then_goes_on(
        doors, pool, flag, _hungry(flag, "torch"),
        ": no memory left with predictor.batch_rows=64", "lower it in a new run_dir",
        engine=tuple(RAY),
    )  # fmt: skip


NOT_A_NUMBER = """
import os
import torch

class Broken(torch.nn.Linear):
    def __init__(self, num_inputs, num_outputs, flag):
        super().__init__(num_inputs, num_outputs)
        self.flag = flag

    def forward(self, rows):
        logits = super().forward(rows)
        if not torch.is_grad_enabled() and os.path.exists(self.flag):
            logits[3:5] = torch.nan
        return logits
"""


def test_a_model_whose_outputs_are_not_numbers(doors: Doors, pool: Pool, class_pool: Pool) -> None:
    doors.module("model_of_mine", NOT_A_NUMBER)
    flag = doors.folder / "flag"
    words = ["model.module._target_=model_of_mine.Broken", f"+model.module.flag={flag}"]
    _fails_then_goes_on(
        doors, pool, flag, words,
        "shard 0: Margin gave 4 non-finite scores of 100 rows (first sample_id 3)",
        "check the model's outputs",
    )  # fmt: skip
    flag.write_text("")
    doors.run(class_pool, "s", *words).refused(
        "test shard 0: the model's probs are not finite", "check the training"
    )
    flag.unlink()
    doors.run(class_pool, "s", *words).done()


def test_a_scorer_whose_scores_are_not_numbers(doors: Doors, pool: Pool) -> None:
    doors.module("scorer_of_infinity", """
import torch
class Endless:
    needs = ("probs",)
    def score(self, outputs, keys):
        scores = outputs.probs[:, 0].double()
        scores[outputs.ids == 250] = torch.inf
        return scores
""")  # fmt: skip
    doors.run(pool, "r", "strategy.scorer._target_=scorer_of_infinity.Endless").refused(
        "shard 2: Endless gave 1 non-finite scores", "first sample_id 250"
    )
    assert not list(doors.folder.glob("r/rounds/r0001/batch.parquet"))


# ------------------------------------------------------------------- modules of the user's own

SCORER = """
from dataclasses import dataclass
from rayal.scorers.margin import Margin

@dataclass(frozen=True)
class Mine:
    needs = ("probs",)

    def score(self, outputs, keys):
        return Margin().score(outputs, keys)
"""


@pytest.mark.ray
def test_a_module_that_workers_cannot_import(small_ray, doors: Doors, pool: Pool) -> None:
    (doors.folder / "elsewhere").mkdir()
    doors.module("scorer_of_the_driver", SCORER, doors.folder / "elsewhere")
    sys.path.append(str(doors.folder / "elsewhere"))
    words = ["strategy.scorer._target_=scorer_of_the_driver.Mine"]
    doors.run(pool, "r", *words, *RAY).refused(
        "workers cannot import a module of yours", "No module named 'scorer_of_the_driver'",
        "engine.py_modules",
    )  # fmt: skip
    doors.run(pool, "r", *words).done()


@pytest.mark.ray
def test_own_classes_on_ray_from_here_and_by_py_modules(doors: Doors, pool: Pool) -> None:
    """The installed command, a Ray of its own: a scorer in the current folder, a model that is
    shipped from another one."""
    doors.module("scorer_from_here", SCORER)
    (doors.folder / "lib").mkdir()
    text = NOT_A_NUMBER.replace("Broken", "Own")
    doors.module("model_from_lib", text, doors.folder / "lib")
    words = [
        "strategy.scorer._target_=scorer_from_here.Mine",
        "model.module._target_=model_from_lib.Own", "+model.module.flag=none",
    ]  # fmt: skip
    shipped = ["engine=ray", "engine.num_workers=1", "engine.py_modules=[lib/model_from_lib.py]"]
    script = Path(sys.executable).parent / "rayal"
    command = [str(script), "run", *small(pool, "r"), *words, *shipped]
    ended = subprocess.run(
        command, cwd=doors.folder, capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    sys.path.append(str(doors.folder / "lib"))
    doors.run(pool, "local", *words).done()
    assert doors.digest("r") == doors.digest("local")


PARTS = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Raises:
    needs = ("probs",)

    def score(self, outputs, keys):
        raise KeyError("no such word")


@dataclass(frozen=True)
class Breaks:
    needs = ()

    def select(self, candidates, labelled, budget, keys):
        return [][budget]
"""


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            ["strategy.scorer._target_=own_parts.Raises"],
            ["Raises.score failed for ", "KeyError: 'no such word' (own_parts.py:10); mend it"],
        ),
        (
            ["strategy.selector._target_=own_parts.Breaks"],
            ["Breaks.select failed: IndexError: ", "(own_parts.py:18); mend it"],
        ),
    ],
)
def test_a_part_of_the_user_that_raises(
    doors: Doors, class_pool: Pool, words: list[str], parts: list[str]
) -> None:
    doors.module("own_parts", PARTS)
    doors.run(class_pool, "r", "strategy=margin", *words).refused(*parts)
    stands = json.loads(doors("status", "r", "--json").done().out)
    assert stands["state"] == "failed"
    assert parts[0] in stands["error"]
