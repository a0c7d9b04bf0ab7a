"""The wiring: from a configuration to a run. Nothing else in `train` sees the whole `RunConfig`; each takes the part
that it needs."""
