"""Setting up a proxy by questions: its settings, its models, and what becomes of them.

What was answered is one frozen `Setup`; a question is a function from a setup to a setup, and `walk` asks one after the
other. Rules: Escape goes one question back and keeps all other answers; Ctrl-C loses nothing without asking; what was
answered so far is a draft on disk; whatever is decided is decided by `plan`, and questions only ask.
"""
