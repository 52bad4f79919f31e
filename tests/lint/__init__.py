"""Checks of the code's own form, and their tests."""
