"""What comes from elsewhere and what goes there: other programs' files, command lines, our own exports.

Rules: pure, from bytes to data; nothing is guessed and nothing is lost in silence: what cannot be taken over is named.
"""
