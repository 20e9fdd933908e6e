"""Profiles of the unit tests."""

from hypothesis import settings

# The same examples everywhere and every time: a failure in CI is a failure at home.
settings.register_profile("unit", derandomize=True, database=None, deadline=None, max_examples=60)
# Thirty times as many, others each time: `pytest tests/unit --hypothesis-profile=thorough`.
settings.register_profile("thorough", database=None, deadline=None, max_examples=2000)
settings.load_profile("unit")
