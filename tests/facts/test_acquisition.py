"""Each verdict of lab 03 can go both ways."""

import pytest

from labkit.facts import acquisition


def test_only_numbers():
    assert acquisition.only_numbers(["builtins.print"])["shown"] == "confirmed"
    assert acquisition.only_numbers([])["shown"] == "refuted"


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        ([], "not-run"),
        ([{"repository": "a/b", "result": "fetched", "why": "sha256"}], "refuted"),
        ([{"repository": "a/b", "result": "refused", "why": "x holds a pickle, whatever its name says: …"}], "confirmed"),
    ],
)
def test_checksum(rows, shown):
    assert acquisition.checksum_is_safety(rows)["shown"] == shown


@pytest.mark.parametrize(("plain", "shown"), [((True, True), "refuted"), ((True, False), "confirmed")])
def test_open_weights(plain, shown):
    assert acquisition.open_weights([{"plain": one} for one in plain])["shown"] == shown


@pytest.mark.parametrize(("ended", "start", "shown"), [("Error", 0, "confirmed"), ("Error", 600, "refuted"), ("complete", 0, "not-run")])
def test_resume(ended, start, shown):
    rows = [{"ended": ended, "requests": 6, "first_from_byte": 0}, {"ended": "complete", "first_from_byte": start, "version": "2.4.0"}]
    assert acquisition.always_resumed(rows)["shown"] == shown
