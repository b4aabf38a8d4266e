"""WATCH: drift and freshness of what the other stations wrote."""
