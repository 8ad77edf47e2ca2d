"""The colours of all figures and of the report's page, chosen so that the colour-blind can tell them apart."""

from __future__ import annotations

# Okabe and Ito's; orange is darkened until letters of it stand out from white paper as 3:1, as WCAG 2 asks
BASE_COLOURS = {"A": "#009e73", "C": "#0072b2", "G": "#c77700", "T": "#222222"}
UNKNOWN_BASE_COLOUR = "#999999"
SPLIT_COLOURS = {"train": "#8c96a3", "val": "#d98a00", "test": "#0072b2"}
TRIAL_COLOURS = {"finished": "#0b6e99", "stopped": "#9aa5b1", "best": "#c8442d"}
AXIS_COLOUR = "#777777"
GRID_COLOUR = "#e3e6ea"
