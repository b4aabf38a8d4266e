"""The kernel: the language that every station shares. It imports no station and no framework."""
