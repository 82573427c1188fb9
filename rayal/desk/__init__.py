"""The desk: a person who labels alone, in a page of their own machine or in a terminal.

It stands on the other side of the file drop: it reads the outbox and writes the inbox, and knows
nothing of rounds, models or the ledger. `rayal label RUN_DIR` opens it.
"""
