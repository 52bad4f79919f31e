"""What a reader of a table has to know, below it: what was found when its figures were looked into."""

from __future__ import annotations

FIRST_NOTE = (
    "Three times as many rounds, answers of 50 chunks; p50 and p99 are of all rounds together, with their 95 % "
    "intervals (rounds drawn anew). An engine sends its streams in steps, here 256 chunks each 20 ms. Who asks again "
    "as soon as a stream ends asks in the midst of a step: the request waits for the chunks that came before it, and "
    "its first chunk does, too. At worst that is one whole step, with every proxy and without any (see the chunks of "
    "others). So the p99 is about the number of streams times what one chunk costs, and 256 times the difference of "
    "two proxies' chunks is about what one is beyond the other: 1 ms is 4 µs a chunk. No connection is new here, and "
    "our collector takes less than a millisecond of a second: neither has a part in it."
)
MODELS_NOTE = (
    "Each model has connections of its own: 32 clients that ask for 1,000 models in turn use 1,000 of them, and "
    "nginx, for which the path names the model since it cannot look into the body, grows by them as well. Its `map` "
    "to a named upstream would cost more, for it looks through all of them. Ours does not do more, it finds less in "
    "the cache: callgrind (CPython 3.11, the relay compiled, a cache of 1 MB) counts 1 % more instructions a request "
    "for 1,000 models than for 1, and 29 lines instead of 2 that were not in the cache. The kernel, "
    "which callgrind does not see, takes about half of what it costs more, and as much for 1 model on 1,000 "
    "connections."
)
