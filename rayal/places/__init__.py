"""Places: where files lie, on a disk or in a store, and the few things that are done with them."""

from rayal.places.place import Entry, Place
from rayal.places.ranges import Ranges
from rayal.places.settings import is_store, refuse_secrets, shown

__all__ = ["Entry", "Place", "Ranges", "is_store", "refuse_secrets", "shown"]
