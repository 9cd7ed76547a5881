"""The command line: `polynet <command>`, one file a command."""
