"""Which numbers distances are made of, why, and whether a device keeps them exact."""

import numpy as np
import pytest
from farthest_worlds import KINDS, rows_of_kind
from slices import cut, none_labelled

from rayal.errors import ScoringError
from rayal.keys import Keys
from rayal.selectors.codes import check_exact
from rayal.selectors.k_center import KCenter

KEYS = Keys(2, 0)


def test_the_choice_of_precision_and_why_is_said():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 32)).astype(np.float32)

    def note(rows, **arguments):
        every = cut(np.arange(3000), features={"embeds": rows}, num_slices=2)
        return KCenter(**arguments).select(every, none_labelled(embeds=rows), 60, KEYS).note

    assert note(x).startswith("mode q, int8: a step is 0.")
    assert note(x, precision="float").startswith("mode f, precision: float; ")
    spiky = x.copy()
    spiky[::100, 0] *= 50
    assert note(spiky).startswith("mode q, int16: ")
    wild = x * rng.lognormal(0, 3, (3000, 1)).astype(np.float32)
    assert note(wild).startswith("mode f, a step is ")
    assert note((20 * x).astype(np.int8)).startswith("mode q, int8 features are their own codes")
    assert note(np.ones_like(x)).startswith("mode f, all rows are equal")


def test_codes_that_are_too_many_to_keep_are_made_anew(monkeypatch):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((900, 6)).astype(np.float32)
    found = []
    for most in (1 << 30, 100):
        monkeypatch.setattr("rayal.selectors.codes._CODES_BYTES", most)
        rows = cut(np.arange(900), features={"embeds": x}, num_slices=3)
        picks = KCenter(precision="integer").select(rows, none_labelled(embeds=x), 150, KEYS)
        found.append(picks.ids.tolist())
        assert (rows.parts[0].cache["codes"] is None) == (most == 100)
    assert found[0] == found[1]


def test_products_of_integers_are_exact_here():
    import torch

    check_exact(torch.device("cpu"))


def test_a_device_that_rounds_is_refused(monkeypatch):
    import torch

    def rounded(*arguments, **more):
        return right(*arguments, **more).bfloat16().float()

    right = torch.addmm
    monkeypatch.setattr(torch, "addmm", rounded)
    with pytest.raises(ScoringError, match="products of integers are not exact on 'cpu'"):
        check_exact(torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_cuda_gives_the_cpus_picks(kind, monkeypatch):
    import torch

    from rayal.selectors import codes

    rng = np.random.default_rng(9)
    x = rows_of_kind(kind, rng, 20_000, 32)
    rows = cut(np.arange(20_000), features={"embeds": x}, num_slices=3)
    there = KCenter(precision="integer").select(rows, none_labelled(embeds=x), 500, KEYS)
    monkeypatch.setattr(codes, "device_here", lambda: torch.device("cpu"))
    here = KCenter(precision="integer").select(rows, none_labelled(embeds=x), 500, KEYS)
    assert there.ids.tolist() == here.ids.tolist()
