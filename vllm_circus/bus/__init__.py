"""How the parts tell each other what is going on: ZeroMQ over ipc sockets in the private run directory."""
