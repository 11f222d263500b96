"""What says how much a channel matters, by name; see `importance`."""

from typing import Literal

Kind = Literal["l1", "l2", "bn", "taylor", "hessian"]
FROM_PICTURES: frozenset[Kind] = frozenset({"taylor", "hessian"})
"""Kinds that ask training pictures."""
