"""The one port that clients see: a relay of bytes, and a few pages of its own."""
