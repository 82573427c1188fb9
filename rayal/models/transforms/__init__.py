"""Input transforms: from pool columns to tensors, in the worker, a batch of rows at a time."""

from rayal.models.transforms.fetched import Fetched
from rayal.models.transforms.images import Images
from rayal.models.transforms.ngrams import Ngrams
from rayal.models.transforms.pixels import Pixels
from rayal.models.transforms.together import Together
from rayal.models.transforms.vector import Vector

__all__ = ["Fetched", "Images", "Ngrams", "Pixels", "Together", "Vector"]
