"""Thin wrappers around the operating system, each named after what it wraps."""
