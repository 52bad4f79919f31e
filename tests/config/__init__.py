"""Reading models files."""
