"""LAND: raw files of each source → typed, partitioned raw tables."""
