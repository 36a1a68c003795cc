"""Which settings mattered: each value's front beside the others'."""
