"""SHOW: what people look at, read from the analytics marts and computed nowhere else."""
