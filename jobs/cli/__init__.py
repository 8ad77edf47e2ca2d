"""The command line: flags from functions, exit codes, settings as files."""
