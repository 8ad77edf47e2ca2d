"""What runs in the processes of a search, and how it is shown."""
