"""What a run is worth: metrics, predictions, intervals."""
