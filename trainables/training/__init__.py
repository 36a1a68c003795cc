"""The training loop, its schedules, and resuming it."""
