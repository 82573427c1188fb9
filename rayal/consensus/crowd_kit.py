"""Aggregations of crowd-kit, for who wants another: GLAD, MMSR, MACE, Wawa, ZeroBasedSkill ..."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rayal.consensus.answers import Agreed, Answers
from rayal.errors import ConfigError, LabelError

# The last: of Wawa and ZeroBasedSkill in 1.4.1 beside a newer scikit-learn.
_FAILURES = (ValueError, AssertionError, ArithmeticError, np.linalg.LinAlgError, AttributeError)


@dataclass(frozen=True)
class CrowdKit:
    """One of crowd-kit's classifiers by its name, with what its constructor takes.

    It holds answers as a table of pandas, a hundred times the memory of ours, and all classes of
    every sample. Gold answers are not told to it: they overrule what it says, and judge annotators.

    Reference: Ustalov et al., Learning from crowds with Crowd-Kit, JOSS 9(96), 2024.
    """

    name: str = "MMSR"
    options: Mapping[str, Any] = field(default_factory=dict)

    def agree(self, answers: Answers) -> Agreed:
        """Gives the label of every sample; an annotator's accuracy is its agreement with them.

        Raises:
            ConfigError: crowd-kit is not installed, has no such classifier, or not those options.
            LabelError: the classifier cannot take these answers.
        """
        said = answers.said_A
        table = _pandas().DataFrame(
            {"task": answers.row_A, "worker": answers.annotator_A, "label": said}
        )
        try:
            made = self._classifier()(**self.options)
        except TypeError as error:
            raise ConfigError(
                f"crowd-kit's {self.name} does not take {dict(self.options)} ({error}); correct "
                "consensus.by.options"
            ) from error
        try:
            is_sure = not hasattr(made, "fit_predict_proba")
            told = made.fit_predict(table) if is_sure else made.fit_predict_proba(table)
        except _FAILURES as error:
            raise LabelError(
                f"crowd-kit's {self.name} cannot take these {len(said)} answers to "
                f"{len(answers.ids)} samples ({error}); take another consensus"
            ) from error
        share_P = answers.true_share_P(_shares(answers, told))
        prior_C = np.full(answers.num_classes, 1.0 / max(answers.num_classes, 1))
        return Agreed(answers, share_P, prior_C, answers.agreement_W(share_P))

    def _classifier(self) -> Any:
        try:
            from crowdkit import aggregation
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"consensus.by.name={self.name} is crowd-kit's, which is not installed; run: pip "
                "install 'rayal[crowdkit]', or take consensus=one_coin"
            ) from error
        found = getattr(aggregation, self.name, None)
        if found is None or not hasattr(found, "fit_predict"):
            raise ConfigError(
                f"crowd-kit has no classifier '{self.name}'; it has DawidSkene, GLAD, MACE, MMSR, "
                "MajorityVote, OneCoinDawidSkene, Wawa, ZeroBasedSkill and others"
            )
        return found


def _shares(answers: Answers, told: Any) -> Any:
    """Gives (P,) probabilities of the pairs, from labels by task or a table of probabilities."""
    if told.ndim == 1:
        label_L = told.reindex(range(len(answers.ids))).to_numpy()
        return (label_L[answers.row_P] == answers.said_P).astype(np.float64)
    rows, columns = np.asarray(told.index), np.asarray(told.columns)
    place_L = np.empty(len(answers.ids), np.int64)
    place_L[rows] = np.arange(len(rows))
    place_C = np.full(answers.num_classes, -1)
    place_C[columns] = np.arange(len(columns))
    shares = np.nan_to_num(told.to_numpy(np.float64))
    return shares[place_L[answers.row_P], place_C[answers.said_P]]


def _pandas() -> Any:
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ConfigError(
            "crowd-kit's aggregations need pandas, which is not installed; run: pip install "
            "'rayal[crowdkit]'"
        ) from error
    return pandas
