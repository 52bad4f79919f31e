"""Tests with engines that take memory of a GPU: `make test-gpu` on a machine that has one.

The ordinary run has them too, on a card made of two stand-ins for the driver's libraries (`tests.nvml_stub`).
"""
