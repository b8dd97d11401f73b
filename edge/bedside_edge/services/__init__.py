"""One use case each, synchronous; the caller picks the thread, `wiring` hands in the ports."""
