from .cost import network_cost
from .poly_inception import PolyInception
from .polynomial import Polynomial
from .pyramid import PyramidLevel, feature_pyramid
from .structure import Structure

__all__ = [
    "PolyInception",
    "Polynomial",
    "PyramidLevel",
    "Structure",
    "feature_pyramid",
    "network_cost",
]
