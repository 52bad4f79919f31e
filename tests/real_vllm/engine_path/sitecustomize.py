"""Read by the Python of every engine here: its processes sleep where they would yield the processor.

vLLM's processes wait for each other with `sched_yield` in a loop as long as tokens are made. On Linux 6.18 the other
processes of that processor may then not run at all: on two cores neither the engine's own server, nor the proxy, nor a
test ran for up to 7 s, and whether an answer could be cancelled in time was chance. vLLM itself sleeps for no time
instead where Python is older than 3.11.1; that costs a fifth more time a token.
"""

import os
import time

os.sched_yield = lambda: time.sleep(0)
