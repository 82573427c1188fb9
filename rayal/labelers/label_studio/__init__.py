"""Label Studio over plain HTTP: a project a round, rows found again by our tag."""

from rayal.labelers.label_studio.adapter import LabelStudio

__all__ = ["LabelStudio"]
