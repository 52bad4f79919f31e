"""Why an engine died, and what to do about it, from its exit code and the end of its log.

    signatures   what is known: each cause's words in a log, what it means, what to do (data; a new one is an entry)
    reading      a log line without the engine's prefixes, and the most telling line of a log where nothing is known
    diagnosis    both together with the exit code

The last line of a vLLM log is seldom the cause: `Engine core initialization failed. See root cause above` and its like
only say that something else went wrong. So known causes are looked for first, then the last exception that is not
such a wrapper, then the last line logged as an error, and only then a wrapper.
"""
