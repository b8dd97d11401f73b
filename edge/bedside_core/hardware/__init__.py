"""Which board runs which engine, and what it must show before it may serve.

`board` holds what a probe found, `profile` what a vendor wrote, `matching` brings both together,
`acceptance` judges what was measured on the very unit. Nothing here probes or compiles.
"""
