"""Probabilities of few and of many classes are the same numbers, however they lie in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rayal.probabilities import FEW, class_counts, softmax, top_two
from rayal.types import Outputs

CLASSES = [1, 2, 3, 10, FEW - 1, FEW, FEW + 1, 100]


def logits_of(num_rows: int, num_classes: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(num_rows, num_classes, generator=torch.Generator().manual_seed(seed))


def outputs_of(probs_NC: torch.Tensor, rejected: torch.Tensor | None = None) -> Outputs:
    return Outputs(torch.arange(len(probs_NC)), {"probs": probs_NC}, rejected)


def with_ties(num_classes: int) -> torch.Tensor:
    """(200, C) multiples of 1/8, so that many rows have two highest."""
    return (logits_of(200, num_classes).softmax(1) * 8).round() / 8


@pytest.mark.parametrize("num_classes", CLASSES)
def test_softmax_is_that_of_torch_to_the_last_bits(num_classes: int) -> None:
    logits_NC = logits_of(50, num_classes)
    logits_NC[0, 0], logits_NC[1] = 1e30, -1e30
    before = logits_NC.clone()
    found = softmax(logits_NC)
    assert found.shape == logits_NC.shape
    torch.testing.assert_close(found.double(), logits_NC.double().softmax(1), rtol=3e-6, atol=1e-7)
    assert torch.equal(logits_NC, before)


@pytest.mark.parametrize("num_classes", [1, 10, 100])
def test_a_number_that_is_none_stays_one(num_classes: int) -> None:
    logits_NC = logits_of(5, num_classes)
    logits_NC[3, 0] = float("nan")
    out = outputs_of(softmax(logits_NC))
    assert out.probs.isnan().any(1).tolist() == [False, False, False, True, False]
    first_N, second_N = top_two(out)
    assert first_N.isnan().tolist() == [False, False, False, True, False]
    assert not second_N[[0, 1, 2, 4]].isnan().any()


@pytest.mark.parametrize("num_classes", CLASSES)
@pytest.mark.parametrize("make", [with_ties, lambda c: softmax(logits_of(300, c))])
def test_top_two_are_the_first_of_a_sort(num_classes: int, make: object) -> None:
    probs_NC = make(num_classes)  # type: ignore[operator]
    before = probs_NC.clone()
    for layout in (probs_NC.contiguous(), probs_NC.t().contiguous().t(), probs_NC[::2]):
        highest = layout.sort(dim=1, descending=True).values
        first_N, second_N = top_two(outputs_of(layout))
        assert torch.equal(first_N, highest[:, 0])
        assert torch.equal(second_N, highest[:, 1] if num_classes > 1 else torch.zeros(len(layout)))
    assert torch.equal(probs_NC, before)


@pytest.mark.parametrize("num_classes", CLASSES)
@pytest.mark.parametrize("make", [with_ties, lambda c: softmax(logits_of(300, c))])
def test_class_counts_are_those_of_a_loop(num_classes: int, make: object) -> None:
    probs_NC = make(num_classes)  # type: ignore[operator]
    fresh_N = np.random.default_rng(1).random(len(probs_NC)) < 0.7
    for layout in (probs_NC.contiguous(), probs_NC.t().contiguous().t()):
        for fresh in (None, fresh_N, np.zeros(len(probs_NC), bool)):
            naive = [0] * num_classes
            for row, probs in enumerate(probs_NC.tolist()):
                if fresh is None or fresh[row]:
                    naive[probs.index(max(probs))] += 1  # the first of equals
            assert class_counts(outputs_of(layout), fresh).tolist() == naive


def test_a_row_that_is_no_number_does_not_make_up_for_a_tie() -> None:
    probs_NC = torch.tensor([[0.5, 0.5], [float("nan"), float("nan")], [0.1, 0.9]])
    assert class_counts(outputs_of(probs_NC), None).tolist() == [2, 1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_probabilities_of_any_float(dtype: torch.dtype) -> None:
    out = outputs_of(torch.tensor([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5]], dtype=dtype))
    assert [part.tolist() for part in top_two(out)] == [[0.75, 1.0, 0.5], [0.25, 0.0, 0.5]]
    assert class_counts(out, None).tolist() == [2, 1]
