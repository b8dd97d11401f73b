"""The secure sum: one report per box, masks that a committee of helpers can only remove as a whole.

Pure: seeds, keys and randomness are handed in, nothing here reads a clock, a file or a socket.
"""
