"""The rules of Bedside: bytes and values in, values out; no clock, file, socket or randomness."""
