"""Measurements: derived metrics, JSON round trip, unknown stays unknown."""

import pytest
from pydantic import ValidationError

from labkit.core.records import Marks, Measurement, Request


def measurement(**changes):
    values = {
        "model": "m", "engine": "e", "prompt_tokens": 10, "output_tokens": 5, "cached_tokens": 0,
        "marks_ns": Marks(start=0, first=2_000_000_000, last=4_000_000_000),
    }  # fmt: skip
    return Measurement(**(values | changes))


def test_metrics_come_from_marks_and_counted_tokens():
    m = measurement()
    assert (m.ttft_s, m.tpot_s, m.decode_tokens_per_s, m.prefill_tokens_per_s) == (2.0, 0.5, 2.0, 5.0)


@pytest.mark.parametrize(
    ("changes", "metric"),
    [
        ({"output_tokens": None}, "tpot_s"),
        ({"output_tokens": 1}, "decode_tokens_per_s"),
        ({"prompt_tokens": None}, "prefill_tokens_per_s"),
        ({"cached_tokens": None}, "prefill_tokens_per_s"),
        ({"marks_ns": Marks(start=0)}, "ttft_s"),
        ({"marks_ns": Marks(start=0, first=1, last=1)}, "tpot_s"),
    ],
)
def test_unknown_is_none(changes, metric):
    assert getattr(measurement(**changes), metric) is None


def test_cached_tokens_are_not_counted_as_prefill():
    assert measurement(cached_tokens=6).prefill_tokens_per_s == 2.0


def test_json_round_trip_keeps_the_contract_names():
    m = measurement()
    again = Measurement.model_validate_json(m.model_dump_json())
    assert again == m
    wanted = "schema model model_sha256 engine engine_version prompt_tokens output_tokens text marks_ns token_marks_ns ttft_s tpot_s"
    wanted += " decode_tokens_per_s prefill_tokens_per_s load_s threads settings machine timestamp"
    assert set(wanted.split()) <= set(m.model_dump(mode="json"))


def test_a_record_of_another_schema_is_refused():
    with pytest.raises(ValidationError, match="schema"):
        Measurement.model_validate(measurement().model_dump() | {"schema": 99})


@pytest.mark.parametrize("given", [{}, {"prompt": "a", "tokens": (1,)}])
def test_a_request_has_exactly_one_input(given):
    with pytest.raises(ValidationError, match="exactly one"):
        Request(**given)
