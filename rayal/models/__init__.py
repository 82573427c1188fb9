"""Models: a module, its input transform, and the checkpoints that hold its weights."""

from rayal.models.model import Model
from rayal.models.transform import Undecodable

__all__ = ["Model", "Undecodable"]
