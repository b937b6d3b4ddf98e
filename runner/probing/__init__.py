"""Probing: the pytest plugin that asks probes of checkpoints, and the engine that generates the replies."""
