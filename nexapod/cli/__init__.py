"""The command people type: a thin client of the daemon's local API."""
