"""Every planted error is found at its line, and nothing else of ours is."""

from pathlib import Path

import pytest
import yaml

from labkit.facts.lint import check_text, rules
from labkit.facts.lint.fix import fixed

CASES = yaml.safe_load((Path(__file__).parents[1] / "fixtures" / "lint" / "planted.yaml").read_text(encoding="utf-8"))
IDS = [f"{n}-{case['name']}-{case['want'][0].split()[1]}" for n, case in enumerate(CASES)]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_planted_errors_are_found_and_nothing_else(case):
    found = [f"{finding.line} {finding.rule}" for finding in check_text(case["name"], case["text"]).findings]
    assert sorted(found) == sorted(case["want"])


def test_there_are_enough_cases_and_every_rule_has_one():
    wanted = {want.split()[1] for case in CASES for want in case["want"]}
    assert sum(len(case["want"]) for case in CASES) >= 60
    assert {rule.name for rule in rules()} - wanted == set()


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_fixes_are_idempotent_and_bring_no_new_finding(case):
    once = fixed(case["name"], case["text"])
    assert fixed(case["name"], once) == once
    before = {(finding.rule, finding.message) for finding in check_text(case["name"], case["text"]).findings}
    after = {(finding.rule, finding.message) for finding in check_text(case["name"], once).findings}
    assert after <= before
    assert (once != case["text"]) == (len(after) < len(before))
