"""Real processes killed at random moments: nothing finished is lost, and nothing is computed twice without cause."""
