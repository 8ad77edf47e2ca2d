"""The networks: their configurations, how they are built, and in what precision they compute."""
