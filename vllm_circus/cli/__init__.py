"""The command line: one small file per command."""


def main() -> None:
    """Entry point of the console script."""
    raise SystemExit("not yet")
