import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import distributed, nn

from rayal.errors import ConfigError, LabelError, TrainingError
from rayal.keys import Keys
from rayal.models.checkpoint import load
from rayal.models.model import Model
from rayal.models.modules import Linear
from rayal.models.transforms.vector import Vector
from rayal.trainers.group import Alone, run_group
from rayal.trainers.supervised import Supervised
from rayal.types import Group, Vocabulary


def report(secret: str, group: Group) -> dict[str, object]:
    total = torch.tensor([float(group.rank + 1)])
    distributed.all_reduce(total)
    return {
        "total": total.item(),
        "size": group.size,
        "omp": os.environ["OMP_NUM_THREADS"],
        "threads": torch.get_num_threads(),
        "secret": os.environ.get(secret),
    }


def misbehave(how: str, group: Group) -> None:
    if group.rank == 1:
        if how == "exit":
            print("the dog ate it", flush=True)
            os._exit(3)
        if how == "error":
            raise LabelError("label 7 is odd; make it even")
        if how == "raise":
            raise ValueError("a bug, say\nand much more of it")
        if how == "sleep":
            time.sleep(60)
    distributed.barrier()


def test_ranks_meet_with_their_threads_and_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENDOR_API_KEY", "hush")
    found = run_group(2, report, "VENDOR_API_KEY", num_threads=1)
    assert found == {"total": 3.0, "size": 2, "omp": "1", "threads": 1, "secret": None}


def test_a_dead_rank_an_error_and_a_late_rank_end_the_group() -> None:
    began = time.monotonic()
    with pytest.raises(TrainingError, match=r"of 2 ended with exit code \d+.*its last line: "):
        run_group(2, misbehave, "exit")
    with pytest.raises(
        TrainingError,
        match=r"^rank 1 of 2 failed with ValueError: a bug, say \(test_trainers_group\.py:\d+\)$",
    ):
        run_group(2, misbehave, "raise")
    with pytest.raises(LabelError, match="label 7 is odd"):
        run_group(2, misbehave, "error")
    with pytest.raises(TrainingError, match=r"rank 0, 1 of 2 did not end within 6 s"):
        run_group(2, misbehave, "sleep", timeout_s=6.0)
    assert time.monotonic() - began < 50
    with pytest.raises(TrainingError, match="a group of 0 processes"):
        run_group(0, misbehave, "exit")


def leave_pid(folder: str, group: Group) -> None:
    (Path(folder) / f"{group.rank}.pid").write_text(str(os.getpid()))
    time.sleep(120)


def test_ranks_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    code = (
        "import test_trainers_group as here; from rayal.trainers.group import run_group; "
        f"run_group(1, here.leave_pid, {str(tmp_path)!r})"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    caller = subprocess.Popen([sys.executable, "-c", code], env=environment)
    pid_file, deadline = tmp_path / "0.pid", time.monotonic() + 60
    while not (pid_file.exists() and pid_file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    caller.kill()
    caller.wait()
    pid = int(pid_file.read_text())
    while _runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")  # a dead child that nobody has asked about is no process
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def labels_of(num_rows: int) -> pa.Table:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(num_rows, 3)).astype(np.float32)
    return pa.table(
        {
            "sample_id": np.arange(num_rows),
            "label": ["ab"[int(row.sum() > 0)] for row in inputs],
            "weight": rng.uniform(0.5, 2, num_rows),
            **{f"x{at}": inputs[:, at] for at in range(3)},
        }
    )


def test_two_ranks_fit_the_model_of_one_up_to_rounding_and_the_same_twice(tmp_path: Path) -> None:
    labels = labels_of(33)  # minibatches of 4 and 5: uneven parts
    model = Model(Linear, Vector(column=("x0", "x1", "x2")))
    trainer = Supervised(
        model, epochs=3, min_steps=0, rows_per_step=5, learning_rate=0.05, num_members=2,
        num_workers=2, validation_share=0.2,
    )  # fmt: skip
    call = (labels, Vocabulary("class", ("a", "b")), None)
    found = [
        run_group(2, trainer.fit, *call, str(tmp_path / name), Keys(0, 0)) for name in ("1", "2")
    ]
    assert found[0] == found[1]
    trainer.fit(*call, str(tmp_path / "alone"), Keys(0, 0), Alone())
    for two, one in zip(
        load(model, tmp_path / "1")[1], load(model, tmp_path / "alone")[1], strict=True
    ):
        torch.testing.assert_close(two.output.weight, one.output.weight, atol=1e-5, rtol=1e-4)


class Branched(nn.Module):
    """The loss reaches neither `spare` nor the second half of the embeds."""

    def __init__(self, num_outputs: int, num_inputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(num_inputs, 4), nn.Dropout(0.5))
        self.norm, self.spare = nn.BatchNorm1d(4), nn.Linear(num_inputs, 4)
        self.output = nn.Linear(4, num_outputs)

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.norm(self.body(inputs))
        return self.output(hidden), torch.cat([hidden, self.spare(inputs)], dim=1)


def test_two_ranks_train_a_module_with_a_parameter_that_the_loss_does_not_reach(
    tmp_path: Path,
) -> None:
    model = Model(Branched, Vector(column=("x0", "x1", "x2")))
    trainer = Supervised(
        model, epochs=3, min_steps=0, rows_per_step=16, learning_rate=0.05, weight_decay=0.1,
        num_workers=2,
    )  # fmt: skip
    call = (labels_of(48), Vocabulary("class", ("a", "b")), None)
    keys = Keys(0, 0)
    run_group(2, trainer.fit, *call, str(tmp_path / "two"), keys)
    _, (fitted,) = load(model, tmp_path / "two")
    begun = model.build_member(call[1], 3, 0, keys)
    assert torch.equal(fitted.spare.weight, begun.spare.weight)
    assert not torch.equal(fitted.output.weight, begun.output.weight)
    # The look for such parameters left no trace in the running means.
    assert fitted.norm.num_batches_tracked == 9


def test_fewer_gpus_than_ranks_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(
        ConfigError, match=r"num_workers is 2, but this machine has 1 GPUs that torch can use"
    ):
        run_group(2, report, "", use_gpu=True)
