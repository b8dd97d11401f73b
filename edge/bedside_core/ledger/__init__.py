"""The privacy ledger as a fold over its entries: reserve, then final, and nothing is ever refunded.

`entries` says what is written, `state` what follows from it, `decide` what may be written next,
and `codec` turns entries to bytes and back. State follows from the entries alone, so a restart, a
second process and an auditor come to the same numbers. What is decided depends on ledger, policy
and time, never on data. Money is integers of 1e-12 rho; times are milliseconds since 1970, handed
in.
"""
