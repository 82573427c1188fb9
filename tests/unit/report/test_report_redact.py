"""Secrets leave the text, and what only sounds like one stays."""

from __future__ import annotations

import pytest

from rayal.report.redact import mask, mask_config


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://me:hunter2@db:5432/rayal", "postgresql://me:***@db:5432/rayal"),
        ("https://0123456789abcdef01234567@host/x", "https://***@host/x"),
        (
            "s3://bucket/x?region=eu&X-Amz-Signature=abc123",
            "s3://bucket/x?region=eu&X-Amz-Signature=***",
        ),
        ("https://x.blob/c?sv=1&sig=abc%3D&se=2", "https://x.blob/c?sv=1&sig=***&se=2"),
        ("Authorization was Bearer abcdefghij.klm", "Authorization was Bearer ***"),
        ("key sk-live-0123456789abcdef01 in a row", "key *** in a row"),
        ("ghp_0123456789abcdefghijkl", "***"),
        ("AKIAABCDEFGHIJKLMNOP", "***"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEabc\n-----END PRIVATE KEY-----", "***"),
    ],
)
def test_forms_of_secrets_are_masked_anywhere(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "postgresql+psycopg://rayal@db/rayal",
        "s3://bucket/run-1",
        "margin 0.0081 between ca and he",
        "http://localhost:8265/a@b",
        "the basic idea: bearer of news",
    ],
)
def test_plain_text_stays(text: str) -> None:
    assert mask(text) == text


def test_given_secrets_are_masked_whatever_they_look_like() -> None:
    assert mask("the word is swordfish, not sword", ["sword", "swordfish", ""]) == (
        "the word is ***, not ***"
    )


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        ("api_key: abc", "api_key: ***"),
        ("  vendor.access-key = abc", "  vendor.access-key = ***"),
        ("password: correct horse battery", "password: ***"),
        ("- token: 12345", "- token: ***"),
        ("labeler: {name: x, api_key: abc, max: 3}", "labeler: {name: x, api_key: ***, max: 3}"),
        ('labeler: {"client_secret": "a, b", x: 1}', 'labeler: {"client_secret": ***, x: 1}'),
    ],
)
def test_values_of_secret_keys_are_masked(line: str, masked: str) -> None:
    assert mask_config(line) == masked


@pytest.mark.parametrize(
    "line",
    [
        "token: ${oc.env:LABELER_TOKEN}",
        "labeler: {token: '${oc.env:LABELER_TOKEN}'}",
        "password: null",
        "max_tokens: 512",
        "tokenizer: bert",
        "key: sample_id",
        "path: pools/words",
    ],
)
def test_what_only_sounds_like_a_secret_stays(line: str) -> None:
    assert mask_config(line) == line


def test_secrets_on_further_lines_are_masked() -> None:
    text = (
        "private_key: |\n  first line\n\n  second line\nseed: 1\ncredentials:\n  user: me\n"
        "  value: abc\nbudget: 5"
    )
    assert mask_config(text) == "private_key: ***\nseed: 1\ncredentials: ***\nbudget: 5"
