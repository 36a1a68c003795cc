"""What mattered: which settings a search found to decide, and what each of their values reached."""
