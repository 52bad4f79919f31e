"""The life of a model, decided without doing anything: states, back-off, order of starting, phases, causes of death."""
