"""JUDGE: Great Expectations suites at the doors of the warehouse."""
