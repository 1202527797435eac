"""The control plane: one process that owns config, workers, health, learners and the admin API.

It is the only process that keeps state or talks to the store; it is never on a request's path.
"""
