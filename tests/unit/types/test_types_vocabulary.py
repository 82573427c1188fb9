"""What a label may be, and what it may not be made of."""

from __future__ import annotations

from typing import Any

import pytest

from rayal.errors import ConfigError
from rayal.types import Vocabulary


@pytest.mark.parametrize(
    ("kind", "classes", "what"),
    [
        ("class", ["a", "b", "a"], "vocabulary.classes has 'a' twice, expected each class once"),
        ("multilabel", [2, 1, 2], "vocabulary.classes has 2 twice"),
        ("class", ["a", 1], r"mixes text and whole numbers \('a', 1\), expected one or the other"),
        ("class", [1, "1"], "mixes text and whole numbers"),
        ("class", [True, False], "has True, expected text or whole numbers"),
        ("class", ["a", 1.5], "has 1.5, expected text or whole numbers"),
        ("class", ["a", None], "has None, expected text or whole numbers"),
        ("number", ["a"], "has 'a', but vocabulary.kind is number"),
        (
            "clas",
            ["a", "b"],
            "vocabulary.kind is 'clas', expected one of class, multilabel, number",
        ),
    ],
)
def test_a_vocabulary_that_is_none(kind: Any, classes: Any, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        Vocabulary(kind, classes)


def test_a_list_of_a_configuration_is_as_good_as_a_tuple() -> None:
    given: Any = ["cat", "dog"]
    vocabulary = Vocabulary("class", given)
    assert vocabulary == Vocabulary("class", ("cat", "dog"))
    assert hash(vocabulary) == hash(Vocabulary("class", ("cat", "dog")))
    assert vocabulary.encode(["dog", "cat"]).tolist() == [1.0, 0.0]
