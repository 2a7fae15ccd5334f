"""Versions and who is champion: the registry, the gate, the ledger."""
