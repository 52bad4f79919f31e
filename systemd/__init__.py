"""The systemd units, as package data."""
