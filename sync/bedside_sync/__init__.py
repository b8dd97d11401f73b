"""Everything that crosses the hospital's wall. Arrives with the nightly sync."""
