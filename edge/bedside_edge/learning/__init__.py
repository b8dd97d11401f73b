"""What a round of the consortium computes from the box's own cases, one `Material` for a task."""
