from .cost import network_cost
from .poly_inception import PolyInception
from .polynomial import Polynomial
from .structure import Structure

__all__ = [
    "PolyInception",
    "Polynomial",
    "Structure",
    "network_cost",
]
