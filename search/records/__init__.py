"""The driver's own files: what they hold, who may write them, and how they are recovered."""
