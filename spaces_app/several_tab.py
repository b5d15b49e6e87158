"""Several pictures at once: a table to look at and to download."""
