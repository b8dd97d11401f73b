"""What the sync side takes from the machine, one module each."""
