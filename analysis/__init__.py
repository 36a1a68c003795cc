"""What a study found, read from its folder alone: the front, its figures and its report."""
