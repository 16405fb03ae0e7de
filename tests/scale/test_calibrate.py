"""Calibration on a stand-in, whose speed is known: it is found again, and the simulator says what other loads then show."""

import math

import pytest

from labkit.scale import calibrate, capacity, standin
from labkit.scale.calibrate import Level
from labkit.scale.jobs import Speed

pytestmark = pytest.mark.alone
SPEED = Speed(base_s=0.02, per_request_s=0.004, per_prompt_token_s=0.002, slots=3)


def test_a_known_speed_is_found_again_and_other_loads_are_as_modelled():
    with standin.start(SPEED) as running:
        found = calibrate.measure(running.base_url, standin.NAME, SPEED.slots, repeats=3)
        most = capacity.most_per_replica(found.speed, 32, 24)
        levels = list(calibrate.validate(running.base_url, standin.NAME, found.speed, (0.3 * most, 0.7 * most), seconds=15))
    # the pace of a step is measured in a loop whose prompts are read in between: a few milliseconds more
    assert found.speed.step_s(2) == pytest.approx(SPEED.step_s(2), rel=0.2)
    assert found.speed.per_prompt_token_s == pytest.approx(SPEED.per_prompt_token_s, rel=0.1)
    assert {(level.figure, level.share) for level in levels} == {("TTFT", 0.5), ("TTFT", 0.95), ("request", 0.5), ("request", 0.95)}
    assert [level for level in levels if not level.agrees] == []
    assert levels[0].utilisation < levels[-1].utilisation < 1


def level(measured, low, high, modelled):
    return Level(1.0, 0.5, "TTFT", 0.5, 100, measured, low, high, modelled)


def test_what_agrees():
    assert level(1.0, 0.99, 1.01, 1.14).agrees
    assert not level(1.0, 0.99, 1.01, 1.16).agrees
    assert level(1.0, 0.7, 1.3, 1.25).agrees
    assert not level(1.0, math.nan, math.nan, 1.25).agrees, "an interval that is open says nothing"
