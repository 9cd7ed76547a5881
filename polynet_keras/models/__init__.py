"""The network as a graph: the algebra of its residual units, its Inception blocks, its structures and their cost."""

from polynet_keras.models.cost import StageCost, StructureCard, list_structures, network_cost
from polynet_keras.models.inception import reduction, stem
from polynet_keras.models.poly_inception import PolyInception
from polynet_keras.models.polynomial import Polynomial, PolynomialSyntaxError
from polynet_keras.models.structure import STAGES, STRUCTURES, Structure

__all__ = [
    "STAGES",
    "STRUCTURES",
    "PolyInception",
    "Polynomial",
    "PolynomialSyntaxError",
    "StageCost",
    "Structure",
    "StructureCard",
    "list_structures",
    "network_cost",
    "reduction",
    "stem",
]
