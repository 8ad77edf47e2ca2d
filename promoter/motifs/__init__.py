"""Discover motifs in contributions, name them by known motifs, and measure known words and sites."""
