"""data/evaluation/choices.jsonl: a question's form, and that nothing but knowledge gives its answer away."""

import json
from collections import Counter

import pytest

from labkit.core import paths

ITEMS = [json.loads(line) for line in paths.data("evaluation", "choices.jsonl").read_text(encoding="utf-8").splitlines()]


def test_size_and_groups():
    count = Counter(item["group"] for item in ITEMS)
    assert set(count) == {"english", "python"}
    assert 30 <= count["english"] <= 40
    assert 20 <= count["python"] <= 30


def test_ids_are_unique():
    assert len({item["id"] for item in ITEMS}) == len(ITEMS)


def test_contexts_are_unique():
    assert len({item["context"] for item in ITEMS}) == len(ITEMS)


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["id"])
def test_form(item):
    assert set(item) == {"id", "group", "context", "choices", "answer"}
    assert item["id"].startswith(item["group"])
    assert type(item["answer"]) is int
    assert 0 <= item["answer"] < 4
    assert len(item["choices"]) == 4
    assert len({choice.strip().lower() for choice in item["choices"]}) == 4
    assert item["context"].strip()
    assert all(choice.strip() for choice in item["choices"])
    # a context ends where a token ends, so that the tokens of context and choice are those of the whole text
    assert not item["context"].endswith(" ") or not any(choice.startswith(" ") for choice in item["choices"])


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["id"])
def test_no_choice_stands_in_its_context(item):
    assert not [choice for choice in item["choices"] if choice.strip().lower() in item["context"].lower()]


@pytest.mark.parametrize("group", ["english", "python"])
def test_positions_are_balanced(group):
    places = Counter(item["answer"] for item in ITEMS if item["group"] == group)
    assert set(places) == {0, 1, 2, 3}
    assert max(places.values()) - min(places.values()) <= 1


@pytest.mark.parametrize("group", ["english", "python"])
def test_length_gives_nothing_away(group):
    """Taking the longest or the shortest choice of each question stays near chance."""
    items = [item for item in ITEMS if item["group"] == group]
    for pick in (max, min):
        hits = 0.0
        for item in items:
            lengths = [len(choice) for choice in item["choices"]]
            best = [at for at, length in enumerate(lengths) if length == pick(lengths)]
            hits += (item["answer"] in best) / len(best)
        assert hits / len(items) < 0.42, (pick.__name__, hits / len(items))
