"""The doors: one small file a command; the only place that knows Hydra."""
