"""Money in minor units."""

import pytest

from rayal.currency import format_money, minor_a_unit


@pytest.mark.parametrize(
    ("currency", "units", "text"),
    [
        ("USD", 100, "123.45 USD"),
        ("usd", 100, "123.45 usd"),
        ("JPY", 1, "12,345 JPY"),
        ("XAF", 1, "12,345 XAF"),
        ("KWD", 1000, "12.345 KWD"),
        ("CLF", 10_000, "1.2345 CLF"),
    ],
)
def test_a_currency_has_its_own_minor_unit(currency: str, units: int, text: str) -> None:
    assert minor_a_unit(currency) == units
    assert format_money(12_345, currency) == text
