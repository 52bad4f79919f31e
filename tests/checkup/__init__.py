"""Tests of checkup."""
