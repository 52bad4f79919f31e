"""The control plane: an ordinary Tornado application behind the relay, on a private socket of the worker."""
