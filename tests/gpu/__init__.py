"""Tests of what is read from the driver, through the real binding."""
