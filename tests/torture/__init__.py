"""What the relay survives, with figures: `python -m tests.torture`."""
