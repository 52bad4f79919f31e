"""The README's reference, generated from the code, and the tests that hold it to that."""
