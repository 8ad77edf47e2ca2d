"""Assign genes to training, validation and test sets, and find homologs that cross the split."""
