"""Labelers: orders go out in chunks, answers come back as events."""
