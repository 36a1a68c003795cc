"""The answers of a sweep: declared contrasts, one engine, one frame, and a page whose words are checked against it."""
