"""How a signed thing travels: one TUF repository, small manifests, content in chunks.

The hub's end and the box's end stand side by side. What decides (manifest, assignment) is pure.
"""
