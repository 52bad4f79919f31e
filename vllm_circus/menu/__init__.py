"""The interactive mode: for people who would rather choose than type.

Rules: everything here exists as a command too, and both call the same code; whatever is asked goes through an `Asker`,
so that a terminal, a plain prompt and a test are the same to every menu; Escape goes one step back, Ctrl-C loses
nothing without asking.
"""
