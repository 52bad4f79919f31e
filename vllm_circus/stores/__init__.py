"""What an operator keeps: saved configurations, profiles, shortcuts, settings. One YAML file each.

Rules: every read is checked against the schema and names file and line; every write is atomic, and mode 0600; who
changes a file holds its shelf's lock from reading to writing, so that two at once lose nothing.
"""
