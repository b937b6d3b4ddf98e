"""Training: one module per family of stage kinds, and the worker that a trainer process runs."""
