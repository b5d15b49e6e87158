"""What Python programs and notebooks call: the commands as functions, with the same options and defaults, and their results as objects."""
