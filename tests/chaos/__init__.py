"""What a set survives of kill -9 and SIGSTOP, cell by cell: `python -m tests.chaos`."""
