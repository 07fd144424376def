"""The words every room shares, and the command people type."""
