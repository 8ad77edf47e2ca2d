"""A trained model applied to many genes, as Ray tasks: predictions, scores, effects of variants."""
