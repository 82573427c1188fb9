"""Several annotators of one sample, one label with a probability; and how good each of them is.

Classes: `Majority`, `OneCoin`, `DawidSkene`. Numbers: `RobustMean`. Several classes a sample: any
of the first three, class by class. `alpha` says how far annotators agree at all.
"""

from rayal.consensus.agreement import alpha
from rayal.consensus.answers import Agreed, Answers, Report
from rayal.consensus.consensus import Consensus, Decided, agreement_of
from rayal.consensus.crowd_kit import CrowdKit
from rayal.consensus.dawid_skene import DawidSkene
from rayal.consensus.majority import Majority
from rayal.consensus.multilabel import agree_on_each_class
from rayal.consensus.numbers import AgreedNumbers, RobustMean
from rayal.consensus.one_coin import OneCoin
from rayal.consensus.quarantine import Quarantine

__all__ = [
    "Agreed",
    "AgreedNumbers",
    "Answers",
    "Consensus",
    "CrowdKit",
    "DawidSkene",
    "Decided",
    "Majority",
    "OneCoin",
    "Quarantine",
    "Report",
    "RobustMean",
    "agree_on_each_class",
    "agreement_of",
    "alpha",
]
