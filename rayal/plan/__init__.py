"""What a run will cost, before it starts: measured on a few real rows, summed over its rounds."""
