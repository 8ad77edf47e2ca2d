"""Simulate a genome whose grammar is known, and measure how well scores and motifs recover it."""
