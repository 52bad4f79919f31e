"""Deciding, without processes or sockets."""
