"""What to try next: the space, the tree of its steps, and the samplers."""
