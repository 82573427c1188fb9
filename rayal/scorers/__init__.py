"""Per-row acquisition functions: one number a row, higher = label sooner; one method a file."""
