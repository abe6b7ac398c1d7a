"""A discrete-event simulation of a fleet: the core's own strategies and those of others on the same requests."""
