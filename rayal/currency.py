"""Money in minor units, the integers that a ledger adds up."""

from __future__ import annotations

# ISO 4217, 2026: currencies whose minor unit is not a hundredth.
_DIGITS = {
    **dict.fromkeys(
        (
            "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI",
            "VND", "VUV", "XAF", "XOF", "XPF",
        ),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}  # fmt: skip


def minor_a_unit(currency: str) -> int:
    """Gives how many minor units are a whole one: 100 cents are a USD, a JPY is its own."""
    return int(10 ** _DIGITS.get(currency.upper(), 2))


def format_money(amount_minor: int, currency: str) -> str:
    """Gives an amount in minor units as money: 12345 USD cents are 123.45 USD."""
    digits = _DIGITS.get(currency.upper(), 2)
    return f"{amount_minor / minor_a_unit(currency):,.{digits}f} {currency}"
