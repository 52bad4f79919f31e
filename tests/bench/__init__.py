"""What the proxy costs, measured: `python -m tests.bench` (or `make bench`)."""
