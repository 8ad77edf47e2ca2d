"""Evaluate a run: metrics, tables of predictions, prediction intervals."""
