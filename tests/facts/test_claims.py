"""The ledger, and verdicts that can go both ways."""

import shlex

import pytest

from labkit.core.errors import BadInput
from labkit.facts import claims, live
from labkit.models import catalog, shape

HEADER = shape.header(catalog.get("qwen3-0.6b"), "Q4_0")


def rows(*factors):
    return [{"context": 512 * 4**n, "measured_bytes": f * HEADER.tensor_bytes} for n, f in enumerate(factors)]


def test_every_claim_is_complete():
    assert all(all(claim.model_dump(exclude={"from_version"}).values()) for claim in claims.load().values())


@pytest.mark.parametrize(("factors", "shown"), [((1.2, 1.2), "refuted"), ((1.3, 2.9), "confirmed"), ((1.2,), "not-run")])
def test_size_times_a_factor(factors, shown):
    assert claims.size_times_two(HEADER, rows(*factors), 1.2)["shown"] == shown


@pytest.mark.parametrize(("gigabytes", "shown"), [(6, "confirmed"), (24, "refuted")])
def test_phi_on_a_gpu(gigabytes, shown):
    assert claims.phi_on_a_small_gpu(gigabytes)["shown"] == shown


@pytest.mark.parametrize(("rates", "shown"), [((5, 50), "confirmed"), ((20, 21), "refuted"), ((20,), "not-run")])
def test_one_number_for_a_framework(rates, shown):
    assert claims.tokens_per_second([{"decode_tokens_per_s": r} for r in rates])["shown"] == shown


def test_savings_are_those_of_the_blocks():
    found = claims.savings()
    assert found["shown"] == "confirmed"
    assert "71.9%" in found["why"]


def test_unknown_claim():
    with pytest.raises(BadInput, match="did you mean phi4-mini-vram"):
        claims.get("phi4-mini-ram")


def test_the_ledger_has_at_least_fifty_claims_each_said_once():
    found = claims.load()
    assert len(found) >= 50
    assert len({claim.says for claim in found.values()}) == len(found)


@pytest.mark.parametrize("id", [id for id, claim in claims.load().items() if claim.seen_by == "command"])
def test_a_command_to_see_it_can_be_typed(id):
    assert len(shlex.split(claims.get(id).see)) > 1


def test_most_can_be_seen_by_a_command_a_lab_or_an_address():
    words = [claim.see for claim in claims.load().values() if claim.seen_by == "words"]
    assert all(see.startswith(("on ", "in ")) and ":" in see for see in words)
    assert len(words) < len(claims.load()) / 5


@pytest.mark.parametrize("id", [id for id, claim in claims.load().items() if claim.see.startswith("labkit ")])
def test_a_labkit_command_to_see_it_asks_for_that_claim(id):
    words = claims.get(id).see.split()
    assert words[:2] == ["labkit", "claims"]
    assert words[-1] == id
    assert id in live.CHECKS
    assert ("--live" in words) == (live.server_of(id) is not None)
