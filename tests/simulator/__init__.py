"""The simulator: its processes, its bytes, its misbehaviour."""
