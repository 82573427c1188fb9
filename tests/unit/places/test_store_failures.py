"""A store that is busy, cuts connections, refuses, or is not there, as its server has it."""

from __future__ import annotations

import gc
import io
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pyarrow.fs as pa_fs
import pytest
from buckets import KEY_ID, SECRET, Bucket

from rayal.errors import PlaceError
from rayal.places import Place, patience, shown
from rayal.places.patience import Patience, patiently
from rayal.places.place import put

QUICK = Patience(attempts=4, connects=2, first_wait_s=0.01, longest_wait_s=0.02, within_s=20.0)
CUT = 0


@pytest.fixture
def file(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An object of five bytes in a store whose failures are tried again at once."""
    monkeypatch.setattr(patience, "DEFAULT", QUICK)
    gc.collect()  # a file that another test left half written is sent when it is collected
    place = Place.of(bucket.url) / uuid.uuid4().hex / "x"
    place.put_bytes(b"hello")
    bucket.requests.clear()
    return place


def _stream(place: Place) -> bytes:
    filesystem, path = place.to_read()
    with filesystem.open_input_stream(path) as stream:
        return stream.read()


# What is asked, the request of it that fails, and what comes in the end.
ASKED: dict[str, tuple[Callable[[Place], object], str, object]] = {
    "info": (lambda place: place.info().size_bytes, "HEAD", 5),
    "list": (lambda place: [one.name for one in place.parent.list()], "GET", ["x"]),
    "open": (lambda place: place.read_bytes(), "HEAD", b"hello"),
    "range": (lambda place: bytes(place.open_input().read_at(2, 1)), "GET", b"el"),
    "stream": (_stream, "GET", b"hello"),
    "listing to read": (
        lambda place: len(
            place.to_read()[0].get_file_info(pa_fs.FileSelector(place.parent.to_read()[1]))
        ),
        "GET",
        1,
    ),
    "put": (lambda place: place.put_bytes(b"again"), "PUT", None),
    "create": (lambda place: (place.parent / "new").create_bytes(b"me"), "PUT", True),
    "remove": (lambda place: place.remove(), "DELETE", None),
    "remove folder": (lambda place: place.parent.remove_folder(), "POST", None),
}


@pytest.mark.parametrize("status", [503, 500, 429, CUT])
@pytest.mark.parametrize("name", ASKED)
def test_a_busy_store_is_asked_again(bucket: Bucket, file: Place, name: str, status: int) -> None:
    ask, method, expected = ASKED[name]
    bucket.fail_next(2, status, method)
    assert ask(file) == expected
    assert bucket.fail_no_more() == 0
    tries = [one.status for one in bucket.requests if one.method == method][:3]
    assert tries[:2] == [status, status]
    assert tries[2] in (200, 204, 206)


@pytest.mark.parametrize("name", ASKED)
def test_it_is_not_asked_for_ever(bucket: Bucket, file: Place, name: str) -> None:
    ask, method, _ = ASKED[name]
    bucket.fail_next(50, 503, method)
    with pytest.raises(PlaceError) as caught:
        ask(file)
    assert [one.status for one in bucket.requests if one.method == method] == [503] * 4
    text = str(caught.value)
    assert text.startswith(f"{file.url.rpartition('/')[0]}"), text
    assert f"the store at {bucket.endpoint} was busy or cut the connection 4 times in" in text
    assert text.endswith("run the same command again later")
    assert "\n" not in text


def test_waits_grow_and_differ_and_end() -> None:
    patient = Patience(first_wait_s=1.0, longest_wait_s=8.0)
    waits = [[patient.wait_s(attempt) for _ in range(50)] for attempt in range(1, 7)]
    for lots, longest in zip(waits, [1.0, 2.0, 4.0, 8.0, 8.0, 8.0], strict=True):
        assert longest / 2 <= min(lots) < max(lots) <= longest


def test_no_attempt_begins_after_the_deadline(bucket: Bucket) -> None:
    asked: list[float] = []

    def ask() -> None:
        asked.append(time.monotonic())
        raise ConnectionResetError("cut")

    patient = Patience(attempts=1000, first_wait_s=0.05, longest_wait_s=0.05, within_s=0.3)
    with pytest.raises(PlaceError, match="cut"):
        patiently(bucket.url, ask, patient)
    assert 0 < asked[-1] - asked[0] <= 0.3


def test_a_number_of_bytes_is_no_refusal() -> None:
    """An answer that broke off after 403 bytes says so, and is asked for again."""
    answers = iter([ConnectionError("403 of 1000 bytes came"), "whole"])

    def ask() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert patiently("s3://b/file", ask, QUICK) == "whole"


def test_what_is_no_failure_of_a_store_is_not_asked_again() -> None:
    asked: list[int] = []

    def ask() -> None:
        asked.append(1)
        raise ValueError("a mistake of ours")

    with pytest.raises(ValueError, match="a mistake of ours"):
        patiently("s3://b", ask)
    assert len(asked) == 1


@pytest.mark.parametrize("part", [1, 2, 3])
def test_a_put_that_failed_leaves_what_was_there(
    bucket: Bucket, file: Place, tmp_path: Path, part: int
) -> None:
    (tmp_path / "large").write_bytes(b"x" * 25_000_000)
    bucket.fail_next(4, 503, "PUT", f"partNumber={part}")
    with pytest.raises(PlaceError, match="was busy or cut the connection 4 times"):
        file.put_file(tmp_path / "large")
    assert file.read_bytes() == b"hello"
    assert [entry.name for entry in file.parent.list()] == ["x"]
    bucket.fail_next(2, 503, "PUT", f"partNumber={part}")
    file.put_file(tmp_path / "large")
    assert file.info().size_bytes == 25_000_000


def test_what_cannot_be_read_to_its_end_is_not_put(
    bucket: Bucket, file: Place, tmp_path: Path
) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() >= 16_000_000:
                raise OSError("the disk failed")
            return super().read(size)

    with pytest.raises(
        PlaceError, match=r"after byte 16,777,216 of 25,000,000 \(the disk failed\)"
    ):
        put(file.url, Failing(b"x" * 25_000_000), 25_000_000)
    assert not file.exists()


def test_a_part_of_a_large_file_is_sent_again_alone(
    bucket: Bucket, file: Place, tmp_path: Path
) -> None:
    with (tmp_path / "large").open("wb") as large:
        large.truncate(65 << 20)
    bucket.fail_next(1, 503, "PUT", "partNumber=2")
    file.put_file(tmp_path / "large")
    assert bucket.fail_no_more() == 0
    parts = [one for one in bucket.requests if one.method == "PUT"]
    assert len(parts) == 1 + sum(one.status == 200 for one in parts)
    assert len([one for one in bucket.requests if "partNumber=1" in one.path]) == 1


def test_a_creation_whose_answer_was_lost_is_ones_own(bucket: Bucket, file: Place) -> None:
    bucket.lose_next(1, "PUT")
    assert (file.parent / "lock").create_bytes(b"me")
    bucket.lose_next(1, "PUT")
    assert not (file.parent / "lock").create_bytes(b"you")


# --------------------------------------------------------------------------------- what is refused

EVERY: dict[str, Callable[[Place], object]] = {
    "exists": lambda place: place.exists(),
    "list": lambda place: place.list(),
    "read": lambda place: place.read_bytes(),
    "put": lambda place: place.put_bytes(b"x"),
    "create": lambda place: place.create_bytes(b"x"),
    "remove": lambda place: place.remove(),
}


def _refused(ask: Callable[[Place], object], place: Place) -> str:
    began = time.monotonic()
    with pytest.raises(PlaceError) as caught:
        ask(place)
    text = str(caught.value)
    assert time.monotonic() - began < 20.0
    assert text.startswith(f"{place.url}")
    assert "\n" not in text
    assert len(text) < 700
    return text


@pytest.mark.parametrize("name", EVERY)
def test_a_wrong_key(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONG")
    text = _refused(EVERY[name], Place.of(bucket.url) / "x")
    assert "the store refuses the credentials (" in text
    assert (
        "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what 'rayal-tests' allows" in text
    )
    assert SECRET not in text


@pytest.mark.parametrize("name", EVERY)
def test_no_credentials(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    text = _refused(EVERY[name], Place.of(bucket.url) / "x")
    assert "cannot be reached without credentials, and none were found" in text
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set, nor is AWS_PROFILE" in text


@pytest.mark.parametrize("name", EVERY)
def test_no_such_bucket(bucket: Bucket, name: str) -> None:
    text = _refused(EVERY[name], Place.of("s3://not-there/x/y"))
    assert (
        f"there is no bucket 'not-there' at {bucket.endpoint}; make it, or correct the URL or "
        "AWS_ENDPOINT_URL" in text
    )


@pytest.mark.parametrize("name", EVERY)
def test_a_server_that_is_not_there(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    text = _refused(EVERY[name], Place.of(bucket.url) / "x")
    assert "the store at http://127.0.0.1:9 cannot be reached, tried 3 times (" in text
    assert text.endswith("check the network and AWS_ENDPOINT_URL")


def test_a_url_with_a_secret_is_refused_without_repeating_it() -> None:
    for url in (
        f"s3://{KEY_ID}:{SECRET}@bucket/pool",
        f"s3://bucket/pool?secret_key={SECRET}",
    ):
        with pytest.raises(PlaceError) as caught:
            Place.of(url)
        text = str(caught.value)
        assert text.startswith("s3://bucket/pool was given with a password or with arguments")
        assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in text
        assert SECRET not in text


def test_a_secret_in_what_a_store_says_is_not_repeated(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask() -> None:
        raise OSError(f"signed with {SECRET}")

    with pytest.raises(PlaceError) as caught:
        patiently(bucket.url, ask)
    assert SECRET not in str(caught.value)
    assert "signed with [AWS_SECRET_ACCESS_KEY]" in str(caught.value)


def test_an_unknown_scheme() -> None:
    with pytest.raises(PlaceError, match="nosuch://a: neither pyarrow nor fsspec can open it"):
        Place.of("nosuch://a/b").exists()


def test_a_package_that_is_missing_is_named(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rayal.places import opened

    opened._creating.cache_clear()
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(PlaceError, match=r"pip install 'rayal\[s3\]'"):
        (Place.of(bucket.url) / "lock").create_bytes(b"x")


def test_google_without_a_login_is_a_matter_of_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words of pyarrow's client, which asks the network for a login before it says so."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setattr(Path, "home", lambda: Path("/no/such/home"))

    def ask() -> None:
        raise OSError(
            "google::cloud::Status(UNAVAILABLE: Retry policy exhausted, with a last message of "
            "Could not create a OAuth2 access token to authenticate the request."
        )

    with pytest.raises(PlaceError) as caught:
        patiently("gs://bucket/run", ask, Patience(first_wait_s=0.0))
    assert "without credentials" in str(caught.value)
    assert "GOOGLE_APPLICATION_CREDENTIALS" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://me:pw@host/a.png?sig=pw", "https://host/a.png?..."),
        ("HTTP://pw@host/a", "HTTP://host/a"),
        ("s3://me:pw@bucket/a?.png", "s3://bucket/a?.png"),
        ("abfs://box@account/a.png?sig=pw", "abfs://box@account/a.png?..."),
        ("a/b@c?.png", "a/b@c?.png"),
    ],
)
def test_a_url_is_shown_without_what_may_be_a_secret(url: str, said: str) -> None:
    assert shown(url) == said


def test_an_error_that_only_a_client_knows_is_one_line() -> None:
    """As azure's HttpResponseError is no OSError."""
    for name, base in (("azure.core.exceptions", Exception), ("builtins", RuntimeError)):
        kind = type("HttpResponseError", (base,), {"__module__": name})

        def ask(kind: type[Exception] = kind) -> None:
            raise kind("OutOfRangeInput")

        with pytest.raises(PlaceError, match="abfs://box/x cannot be read or written: OutOfRange"):
            patiently("abfs://box/x", ask)
