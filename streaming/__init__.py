"""HEAR: events from the log into the raw tables and the users' online state."""
