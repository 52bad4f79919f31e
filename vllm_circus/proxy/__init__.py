"""The one port that clients see: a relay of bytes, and a few pages of its own.

    gate, tls ─▶ connection ◀─ downstream ─▶ reception ─▶ head, fields
                                   │ glance, intake ─▶ framing, bodymodel
                                   ▼
                 incoming ◀─ request ◀─ exchange ─▶ counters, usage
                                │            └─ early
                                │ relay ─▶ fleet ─▶ group ─▶ routes, rules, balance, waiting, stored
                                │ rewrite, naming ─▶ members
                                ▼
              descriptors ◀─ backend ─▶ upstream ─▶ reply, framing

Clients behind TLS are on the loop's transports, all else is on ours: poller ─▶ transport.

The process around it: server, which hears the states, says what is wanted (wishes) and reads a new plan (planfile).

What the profiler said, and what followed from it (CPython 3.11, one core; the benchmark prints today's figures):

- A relay that copies bytes and looks at none costs as much as nginx: 16 µs a request, of which nearly all is six system
  calls. A seventh asks whether an idle connection is still quiet, and is worth its 0.4 µs. Ours to lose is Python.
- Heads repeat themselves but for Content-Length. Taken out, the rest is a key, and all that follows from a head (page,
  key, CORS, the lines that pass) is looked up with it: 1.3 µs where finding it out takes 16.
- A small body is read by one expression (1.1 µs) instead of member by member (4.9 µs); in a large one `find` counts.
- Whole requests and whole answers take a straight line: 1,460 steps of the interpreter, from 2,870, and about 12 µs of
  our own, from 23.
- A piece of a stream is a look-up of its size line, a clock, a write and two counts: 1.3 µs of our own, from 2.1.
- Compiled, that look-up was the largest part of a small request: to find the head's end and its length, to hash it and
  to look it up took a third of all instructions. What was read last on a connection is compared first (`read_again`).
  Loops over single bytes take a third with `i64` of what they take with Python's integers. Both together: 31,000
  instructions a request, from 46,500; nginx executes 34,000 (callgrind).
- What a token cost beyond nginx was the loop's: of its 5,900 instructions 700 are ours, and libuv copies what it reads,
  takes the interpreter's lock twice for it, and asks epoll by level, which has the kernel look at each ready socket
  again. An epoll set and a transport of our own (poller, transport) take a twelfth of the whole off; TLS keeps the
  loop's. Writing all pieces of a turn at its end changed nothing, and neither did an interpreter built with PGO.
- Large bodies are never joined or sliced: views of what was read go out in one `writelines`. Pausing a client
  after each read cost two `epoll_ctl` for nothing, since a read that does not fill the buffer ends the turn by itself.
"""
