"""The test kit for adapters: a vendor with faults over real HTTP, and the contract.

Nothing in a run imports it; `rayal vendor check CONFIG` and tests do.
"""
