"""What people see: tables, documents and log lines, built as plain data and only then printed.

Rule: everything that came from outside the program (reasons, log text, names) goes through `logline.clean` before it
reaches a terminal.
"""
