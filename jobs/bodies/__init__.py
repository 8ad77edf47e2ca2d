"""What jobs do, apart from their arguments, which `--help` describes without importing this."""
