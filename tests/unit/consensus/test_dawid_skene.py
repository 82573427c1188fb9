"""Dawid and Skene's EM: the table of their paper, and what it is for."""

from __future__ import annotations

import numpy as np
import pytest

from rayal.consensus import Answers, DawidSkene, Majority, OneCoin
from rayal.consensus import dawid_skene as module
from rayal.errors import ConfigError

# Dawid and Skene, Applied Statistics 28, 1979, Table 1: fitness of 45 patients for an anaesthetic;
# the first observer looked three times, the other four once.
_TABLE_1 = """
111 1 1 1 1|333 4 3 3 4|112 2 1 2 2|222 3 1 2 1|222 3 2 2 2|222 3 3 2 2|122 2 1 1 1|333 3 4 3 3
222 2 2 2 3|232 2 2 2 3|444 4 4 4 4|222 3 3 4 3|111 1 1 1 1|222 3 2 1 2|121 1 1 1 1|111 2 1 1 1
111 1 1 1 1|111 1 1 1 1|222 2 2 2 1|222 1 3 2 2|222 2 2 2 2|222 2 2 2 1|222 3 2 2 2|221 2 2 2 2
111 1 1 1 1|111 1 1 1 1|232 2 2 2 2|111 1 1 1 1|111 1 1 1 1|112 1 1 2 1|111 1 1 1 1|333 3 2 3 3
111 1 1 1 1|222 2 2 2 2|222 3 2 3 2|433 4 3 4 3|221 2 2 3 2|232 3 2 3 3|333 3 4 3 2|111 1 1 1 1
111 1 1 1 1|121 2 1 1 1|232 2 2 2 2|121 1 1 1 1|222 2 2 2 2
"""


def table_1() -> Answers:
    patients = _TABLE_1.strip().replace("\n", "|").split("|")
    triples = [
        (row, f"observer {who}", int(said) - 1)
        for row, patient in enumerate(patients, start=1)
        for who, looks in enumerate(patient.split(), start=1)
        for said in looks
    ]
    rows, names, said = zip(*triples, strict=True)
    return Answers.of(rows, names, said, 4)


def test_the_papers_table() -> None:
    answers = table_1()
    assert (len(answers.ids), len(answers.row_A)) == (45, 45 * 7)
    em = DawidSkene(max_steps=1_000, tolerance=1e-10, strength=0.0)
    tables_WCC, prior_C = em.tables(answers)
    # The paper's estimates of how frequent the four states are.
    assert np.round(prior_C, 2).tolist() == [0.40, 0.42, 0.11, 0.07]
    # And what the first observer takes them for: rows are true states, as in the paper's Table 2.
    assert np.round(tables_WCC[0], 2).tolist() == [
        [0.89, 0.11, 0.0, 0.0],
        [0.07, 0.88, 0.05, 0.0],
        [0.0, 0.34, 0.66, 0.0],
        [0.0, 0.0, 0.56, 0.44],
    ]
    # Of three patients the answer is not what most looks say: 2 (3 3 3, 4 3 3 4), 12 and 36.
    agreed = em.agree(answers)
    place = dict(zip(answers.ids.tolist(), (agreed.place_L + 1).tolist(), strict=True))
    assert (place[2], place[3], place[12], place[36]) == (4, 2, 3, 4)


def test_equals_the_plain_form() -> None:
    answers = table_1()
    counts = np.zeros((45, 5, 4))
    for row, who, said in zip(answers.row_A, answers.annotator_A, answers.said_A, strict=True):
        counts[row, who, said] += 1
    probs = counts.sum(1) / counts.sum((1, 2))[:, None]
    for _ in range(200):
        prior = probs.mean(0)
        tables = np.einsum("lc,lws->wcs", probs, counts)
        tables /= tables.sum(2, keepdims=True)
        logs = np.log(prior) + np.einsum("lws,wcs->lc", counts, np.log(tables + 1e-300))
        probs = np.exp(logs - logs.max(1, keepdims=True))
        probs /= probs.sum(1, keepdims=True)
    agreed = DawidSkene(max_steps=1_000, tolerance=0.0, strength=0.0).agree(answers)
    np.testing.assert_allclose(agreed.posterior(np.arange(45)), probs, atol=1e-6)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = table_1()
    whole = DawidSkene().agree(answers)
    monkeypatch.setattr(module, "_ROWS", 7)
    parts = DawidSkene().agree(answers)
    np.testing.assert_allclose(whole.share_P, parts.share_P, atol=1e-9)
    assert whole.place_L.tolist() == parts.place_L.tolist()


def test_learns_who_takes_one_class_for_another() -> None:
    # Two careful annotators and two who call every 1 a 2: a coin a head cannot say that.
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 3_000)
    rows, names, said = [], [], []
    for who, (error, mixes) in enumerate([(0.15, 0), (0.2, 0), (0.1, 1), (0.1, 1), (0.1, 1)]):
        flip = rng.random(3_000) < error
        told = np.where(flip, (truth + rng.integers(1, 4, 3_000)) % 4, truth)
        told = np.where((told == 1) & (rng.random(3_000) < 0.8), 2, told) if mixes else told
        rows += range(3_000)
        names += [f"a{who}"] * 3_000
        said += told.tolist()
    answers = Answers.of(rows, names, said, 4)
    right = {
        type(one).__name__: float((one.agree(answers).place_L == truth).mean())
        for one in (Majority(), OneCoin(), DawidSkene())
    }
    assert right["DawidSkene"] > right["Majority"] + 0.03
    assert right["DawidSkene"] > right["OneCoin"] + 0.01


def test_refuses_tables_that_no_memory_holds() -> None:
    names = [f"a{place}" for place in range(200)]
    answers = Answers.of(np.zeros(200, np.int64), names, np.zeros(200, np.int64), 1_000)
    with pytest.raises(ConfigError, match=r"1000 x 1000 for each of 200 annotators, 1\.5 GiB"):
        DawidSkene().agree(answers)
