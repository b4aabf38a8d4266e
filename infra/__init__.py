"""Where things run: `local` on one machine; the clouds beside it."""
