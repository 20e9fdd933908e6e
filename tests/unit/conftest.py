"""Options and profiles of the unit tests."""

import pytest
from hypothesis import settings

# The same examples everywhere and every time: a failure in CI is a failure at home.
settings.register_profile("unit", derandomize=True, database=None, deadline=None, max_examples=60)
# Thirty times as many, others each time: `pytest tests/unit --hypothesis-profile=thorough`.
settings.register_profile("thorough", database=None, deadline=None, max_examples=2000)
settings.load_profile("unit")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="write tests/golden anew instead of comparing")


@pytest.fixture
def is_updating_goldens(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written."""
    # Without tests/unit on the command line pytest reads this file too late to know the option.
    return bool(request.config.getoption("--update-goldens", default=False))
