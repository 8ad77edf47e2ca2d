"""Report a run as one HTML page, from the files of the jobs."""
