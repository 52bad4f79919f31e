"""The models on this machine: where they lie, what they are, and how they come here and go."""
