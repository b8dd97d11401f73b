"""The consortium's side: relays, adds, publishes. It cannot read one hospital's part."""
