"""`python -m bedside_edge.demo`."""

from bedside_edge.demo.command import main

if __name__ == "__main__":
    main()
