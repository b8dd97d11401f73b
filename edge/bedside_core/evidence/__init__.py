"""The evidence log's rules: entries, the Merkle tree over them, checkpoints, tiles and proof files.

The exact bytes of every format are in docs/evidence-log.md. Nothing here stores, sends or signs:
nodes are read and messages are signed by functions handed in.
"""
