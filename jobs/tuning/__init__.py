"""The search of jobs.tune: its trials, what draws and stops them, and how they are shown and written."""
