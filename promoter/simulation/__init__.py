"""A genome whose grammar is known, and how well scores recover it."""
