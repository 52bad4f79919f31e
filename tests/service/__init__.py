"""Tests of the systemd units and of the command that installs them."""
