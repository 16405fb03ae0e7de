"""The well-known table: every row is decided by something, and every function that decides can say yes, no and not here."""

import tomllib

import pytest
from pydantic import ValidationError

from labkit.core import paths
from labkit.facts import claims, comparison, live
from labkit.facts.comparison import Side
from labkit.teach.notebooks import find


def speed(name, rate, spread=0.02, tpot=None):
    low, high = rate * (1 - spread), rate * (1 + spread)
    return {
        "engine": name,
        "decode_tokens_per_s": rate,
        "decode_tokens_per_s_low": low,
        "decode_tokens_per_s_high": high,
        "tpot_s": tpot or 1 / rate,
    }


def start(name, seconds, memory):
    return {"engine": name, "first_token_s": seconds, "memory_bytes": memory, "includes_http": name in ("ollama", "foundry")}


def at_once(name, **rates):
    return [{"engine": name, "parallel": int(level[1:]), "tokens_per_s": rate} for level, rate in rates.items()]


def file(name, form, size, kl, error=0.001):
    return {"name": name, "format": form, "bytes": size, "kl_mean": kl, "kl_stderr": error}


# function -> rows with which it holds, rows with which it does not
BOTH_WAYS = {
    "ollama_on_processor": (
        {"compare": [speed("ollama", 40), speed("foundry", 60)]},
        {"compare": [speed("ollama", 1), speed("foundry", 60)]},
    ),
    "ollama_is_fastest": (
        {"compare": [speed("ollama", 50), speed("foundry", 52)]},
        {"compare": [speed("ollama", 50), speed("foundry", 70)]},
    ),
    "ollama_starts_fast": (
        {"start": [start("ollama", 1.0, 1), start("foundry", 2.0, 1), start("llamacpp", 0.1, 1)]},
        {"start": [start("ollama", 4.0, 1), start("foundry", 2.0, 1)]},
    ),
    "ollama_is_small": (
        {"start": [start("ollama", 1, 200e6), start("foundry", 1, 300e6)]},
        {"start": [start("ollama", 1, 400e6), start("foundry", 1, 300e6)]},
    ),
    "foundry_scales": (
        {"parallel": at_once("foundry", n1=20, n8=70)},
        {"parallel": at_once("foundry", n1=30, n8=40)},
    ),
    "gguf_keeps_quality": (
        {"quality": [file("Q4_0", "gguf", 90, 0.1), file("ONNX", "onnx-genai", 95, 0.2)]},
        {"quality": [file("Q4_0", "gguf", 90, 0.3), file("ONNX", "onnx-genai", 95, 0.2)]},
    ),
    "onnx_keeps_quality": (
        {"quality": [file("Q4_0", "gguf", 90, 0.3), file("ONNX", "onnx-genai", 95, 0.2)]},
        {"quality": [file("Q4_0", "gguf", 90, 0.1), file("ONNX", "onnx-genai", 95, 0.2)]},
    ),
    "choose_ollama": (
        {"start": [start("ollama", 1, 200e6), start("foundry", 2, 300e6)]},
        {"start": [start("ollama", 3, 400e6), start("foundry", 2, 300e6)]},
    ),
    "choose_foundry": (
        {"compare": [speed("ollama", 40), speed("foundry", 60)], "parallel": at_once("ollama", n8=30) + at_once("foundry", n8=40)},
        {"compare": [speed("ollama", 70), speed("foundry", 60)], "parallel": at_once("ollama", n8=50) + at_once("foundry", n8=40)},
    ),
}


def test_all_functions_are_tried():
    assert set(BOTH_WAYS) == set(comparison.DECIDERS)
    used = {side.rows for feature in comparison.features() for _, side in feature.sides() if side.rows}
    assert used == set(comparison.DECIDERS), "no function without a row, and no row without one"


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_each_can_come_out_either_way(name):
    decide, (holds, not_so) = comparison.DECIDERS[name], BOTH_WAYS[name]
    assert decide(holds)[0] is True
    assert decide(not_so)[0] is False
    assert decide({}) == (None, decide({})[1])
    assert all(any(character.isdigit() for character in decide(e)[1]) or "less" in decide(e)[1] for e in (holds, not_so)), "it says why"


@pytest.mark.parametrize(
    ("aspect", "side", "evidence"),
    [
        ("hardware", "ollama", "ollama_on_processor"),
        ("when to choose", "ollama", "choose_ollama"),
        ("when to choose", "foundry", "choose_foundry"),
    ],
)
def test_what_one_machine_cannot_show_holds_in_part_at_most(aspect, side, evidence):
    holds, not_so = BOTH_WAYS[evidence]
    said = getattr(next(f for f in comparison.features() if f.aspect == aspect), side)
    word, why, _ = comparison.decide(said, holds)
    assert (word, why.endswith(said.beyond)) == ("holds in part", True)
    assert comparison.decide(said, not_so)[0] == "does not hold"
    assert comparison.decide(said, {})[0] == "not decided here"


def test_the_servers_are_judged_among_themselves_and_the_reason_says_so():
    why = comparison.ollama_starts_fast({"start": [start("ollama", 1.0, 1), start("foundry", 2.0, 1), start("llamacpp", 0.1, 1)]})[1]
    assert why == "judged among the servers: ollama 1 s, foundry 2 s; in process: llamacpp 0.1 s"


@pytest.mark.parametrize("side", [side for f in comparison.features() for _, side in f.sides() if side.claim], ids=lambda side: side.claim)
def test_each_claim_can_come_out_either_way(side):
    claim = claims.get(side.claim)
    words = {
        shown: comparison.decide(side, {"claims": [claims.row(claim.id, shown, "seen")]})[0]
        for shown in ("confirmed", "refuted", "not-run")
    }
    assert words["not-run"] == "not decided here"
    assert words["confirmed"] != words["refuted"]
    assert words["confirmed"] == {"true": "holds", "misleading": "holds in part"}.get(claim.verdict, "does not hold")
    assert claim.id in live.CHECKS, "it is checked live"


def test_a_tie_is_a_tie():
    tied = {"quality": [file("Q4_0", "gguf", 90, 0.200, 0.01), file("ONNX", "onnx-genai", 95, 0.205, 0.01)]}
    assert comparison.gguf_keeps_quality(tied)[0] is comparison.onnx_keeps_quality(tied)[0] is True
    far = {"quality": [file("Q4_0", "gguf", 90, 0.2), file("ONNX", "onnx-genai", 200, 0.1)]}
    assert comparison.onnx_keeps_quality(far)[0] is None, "files of other sizes are not compared"
    nearest = {"quality": [*far["quality"], file("ONNX small", "onnx-genai", 92, 0.5)]}
    assert comparison.onnx_keeps_quality(nearest) == (False, comparison.onnx_keeps_quality(nearest)[1])
    overlap = {"compare": [speed("ollama", 50, 0.3), speed("foundry", 60, 0.3)]}
    assert comparison.ollama_is_fastest(overlap)[0] is True, "intervals overlap"
    split = {"start": [start("ollama", 1, 400e6), start("foundry", 2, 300e6)]}
    assert comparison.choose_ollama(split)[0] is None
    assert "no clear winner" in comparison.choose_ollama(split)[1]


def test_the_table_has_its_fifteen_rows_and_each_is_decided_by_something():
    features = comparison.features()
    assert len(features) == len({f.aspect for f in features}) == 15
    for feature in features:
        sides = feature.sides()
        assert sides, feature.aspect
        waits = [side.none for _, side in sides if side.none]
        told = all("terms cited" in words or "machine" in words for words in waits)
        assert len(waits) < len(sides) or told, f"{feature.aspect} is decided by nothing, and says not why"
    assert [f.aspect for f in features if all(side.none for _, side in f.sides())] == ["platform", "enterprise"]


def test_the_steps_are_those_of_the_lab():
    text = find("12").source.read_text(encoding="utf-8")
    steps = {step for f in comparison.features() for _, side in f.sides() for step in side.steps}
    assert steps == {"compare", "start", "parallel", "quality"}
    assert all(f'lab.step("{step}"' in text for step in (*steps, "claims"))


def test_the_table_shows_what_was_seen_and_by_what():
    evidence = {key: rows for holds, _ in BOTH_WAYS.values() for key, rows in holds.items()}
    evidence["claims"] = [claims.row(id, "confirmed", "seen here") for id in comparison.claim_ids()]
    found = {row["aspect"]: row for row in comparison.table(evidence)}
    assert found["model format"]["ollama_shown"] == "holds"
    assert found["security"]["foundry_shown"] == "does not hold"
    assert found["security"]["ollama_says"] == found["security"]["ollama_shown"] == "–"
    assert found["set-up"]["ollama_shown"] == "holds in part"
    assert found["enterprise"]["foundry_shown"] == "no run-time test"
    assert found["scale"]["foundry_by"] == "step parallel"
    assert "terms cited" in found["enterprise"]["foundry_why"]
    empty = comparison.table({})
    assert {row[f"{side}_shown"] for row in empty for side in ("ollama", "foundry")} == {"not decided here", "no run-time test", "–"}


@pytest.mark.parametrize(
    "given",
    [
        {"says": "x"},
        {"says": "x", "claim": "a", "none": "b"},
        {"says": "x", "rows": "ollama_is_small"},
        {"says": "x", "none": "b", "steps": ["start"]},
    ],
)
def test_a_side_is_decided_in_one_way(given):
    with pytest.raises(ValidationError, match="exactly one"):
        Side(**given)


def test_the_data_file_has_nothing_else():
    assert set(tomllib.loads(paths.data("feature_table.toml").read_text(encoding="utf-8"))) == {"row"}


def test_break_even():
    # 3.6 W at 1 token/s are 1e-6 kWh a token; at 1 a kWh that is 1 for a million tokens
    assert comparison.break_even_tokens(3.0, 100, 3.6, 1.0, 1.0) == pytest.approx(50e6)
    assert comparison.break_even_tokens(1.0, 100, 3.6, 1.0, 1.0) is None
    assert comparison.break_even_tokens(0.5, 100, 3.6, 1.0, 1.0) is None
