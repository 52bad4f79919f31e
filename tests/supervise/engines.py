"""Stand-ins for engines: argument vectors of small Python programs, each with one habit."""

from __future__ import annotations

import sys
import textwrap


def python(source: str, *arguments: str) -> tuple[str, ...]:
    """An argument vector without line ends: an ini cannot hold them."""
    return (sys.executable, "-c", f"exec({textwrap.dedent(source)!r})", *arguments)


SLEEPER = python("import time; time.sleep(600)")

#: Tells its environment, its session and its pid.
TELLER = python("""
    import json, os, time
    print(json.dumps({"env": dict(os.environ), "sid": os.getsid(0), "pid": os.getpid()}), flush=True)
    time.sleep(600)
""")

#: Takes no SIGTERM.
DEAF = python("""
    import signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf", flush=True)
    time.sleep(600)
""")

#: Leaves a child in its session that has no environment and takes no SIGTERM; the child tells its pid.
PARENT = python("""
    import os, signal, time
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.execve("/bin/sh", ["sh", "-c", "echo $$; while :; do sleep 1; done"], {})
    time.sleep(600)
""")

#: Leaves a child that went into a session of its own; the child tells its pid.
LEAVER = python("""
    import os, time
    if os.fork() == 0:
        os.setsid()
        print(os.getpid(), flush=True)
    time.sleep(600)
""")

#: Says a lot, and at last why it dies.
CRASHER = python("""
    import os, sys
    for number in range(3000):
        print("line", number)
    sys.stdout.flush()
    os.write(2, b"the reason")
    os.abort()
""")

#: Takes as many seconds to end as its argument says, and tells when it is told and when it is done.
TIDY = """
import signal, sys, time
def end(*_):
    print("told", flush=True)
    time.sleep(float(sys.argv[1]))
    print("done", flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(600)
"""
