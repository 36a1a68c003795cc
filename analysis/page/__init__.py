"""What the report's page answers first, and what its reader can look into: the data behind its charts and tables."""
