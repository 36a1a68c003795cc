"""What both sides of the disk share: names, the schema of a point, and safe reading."""
