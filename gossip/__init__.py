"""Telling everybody, in batches, within limits."""
