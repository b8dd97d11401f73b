"""`python -m bedside_edge` is `bedside-edge`."""

from bedside_edge.cli import main

main()
