"""Property tests here are the same in every run: a failure is found by whoever caused it."""

from hypothesis import settings

settings.register_profile("ledger", derandomize=True, deadline=None, database=None)
settings.load_profile("ledger")
