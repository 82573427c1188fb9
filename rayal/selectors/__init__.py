"""Batch choice among candidates: questions to slices, and what the driver does with the answers."""
