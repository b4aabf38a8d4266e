"""COMPARE: what the split traffic says about the variants."""
