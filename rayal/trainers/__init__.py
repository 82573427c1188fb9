"""Trainers: from a snapshot of labels to a checkpoint."""

from rayal.trainers.supervised import Supervised

__all__ = ["Supervised"]
