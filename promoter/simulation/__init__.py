"""Simulate a genome whose grammar is known, and measure how well scores and motifs recover it."""

from typing import TYPE_CHECKING

from promoter.lazy import lazy_names

if TYPE_CHECKING:
    from promoter.simulation.genome import GRAMMAR, INTERACTION, Motif, Simulation, simulate
    from promoter.simulation.recovery import RecoveredMotifs, compare_with_implanted, motif_recovery

__getattr__ = lazy_names(__name__, __file__)
