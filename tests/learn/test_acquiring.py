"""What lab 03 does and draws, without its notebook."""

import os

import pytest

from labkit.core.errors import BadInput
from labkit.learn import acquiring, acquiring_services, acquiring_view
from labkit.learn.lab import start
from labkit.models import safety


@pytest.fixture
def service():
    found = acquiring.open_hub("stand-in", None)
    yield found
    found.stop()


def closed(fig):
    import matplotlib.pyplot as plt

    plt.close(fig)


def test_a_hub_says_what_it_is():
    assert acquiring.open_hub("online", None).endpoint is None
    with pytest.raises(BadInput, match='hub = "stand-in" or "online"'):
        acquiring.open_hub("elsewhere", None)


def test_listing_and_pulling_tell_the_repositories_apart(service):
    rows = {row["repository"]: row for row in acquiring.listing(service, "course")}
    assert rows["course/mixed"] | {"weights": 1, "pickle": 1, "code": 1} == rows["course/mixed"]
    assert rows["course/gated"]["gated"]
    assert rows["course/no-licence"]["licence"] == "none stated"
    assert acquiring.listing(service, "no such words") == []
    before = os.environ.get("LABKIT_CACHE")
    pulled = {row["repository"]: row["result"] for row in acquiring.pull_rows(service, sorted(rows))}
    assert os.environ.get("LABKIT_CACHE") == before
    assert [name for name, result in pulled.items() if result == "refused"] == ["course/disguised", "course/gated", "course/old-checkpoint"]


@pytest.mark.parametrize("shares", [(0.5,), (0.1, 0.2, 0.9)])
def test_a_broken_download_sends_each_byte_once(shares):
    rows = acquiring.cut_rows(None, shares)
    assert len(rows) == len(shares) + 1
    assert all(row["verified"] for row in rows)
    assert sum(row["to_byte"] - row["from_byte"] for row in rows) == rows[0]["file_bytes"]
    fig = acquiring_view.draw_cut(rows, 30, "test")
    assert len(fig.axes[0].patches) == 2 * len(rows)
    closed(fig)


def test_flipped_bits_are_seen():
    rows = acquiring.flip_rows(None, seed=1, count=8)
    assert not any(row["equal"] for row in rows)
    assert 0 < sum(row["same_digits"] for row in rows) / len(rows) < 12
    assert rows != acquiring.flip_rows(None, seed=2, count=8)
    closed(acquiring_view.draw_flips(rows, 60, "test"))


def test_every_damaged_bundle_is_refused():
    rows = acquiring.bundle_rows(None, seed=3, count=5)
    assert [row["refused"] for row in rows] == [False, True, True, True, True, True]


def test_foundrys_offers_and_one_pulled():
    rows = acquiring.foundry_rows()
    assert {row["device"] for row in rows} == {"cpu", "gpu", "npu"}
    assert [row["pulled"] for row in rows if row["pulled"]] == ["verified by md5"]


def test_the_pickle_is_read_and_does_not_run(capsys):
    assert safety.pickle_imports(acquiring.pickle_bytes()) == ["builtins.print"]
    assert any("REDUCE" in line for line in acquiring.opcodes(acquiring.pickle_bytes())[13:26])
    assert "this ran" not in capsys.readouterr().out


def test_the_small_safetensors_file_is_one(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(acquiring_services.safetensors_bytes())
    assert list(safety.safetensors_header(tmp_path / "x.safetensors")) == ["w"]


def test_the_widgets_picture_follows_the_licence_and_the_size():
    rows = acquiring_view.licences()
    some = acquiring_view.fitting(rows, "no conditions on use", 3)
    assert "smollm2-135m" in some
    assert "gemma3-1b" not in some
    assert set(some) < set(acquiring_view.fitting(rows, "any", 3)) < set(acquiring_view.fitting(rows, "any", 20))
    assert acquiring_view.fitting(rows, "MIT", 0) == []
    for licence in ("any", "MIT"):
        fig = acquiring_view.draw_licences(licence, 3)
        assert len(fig.axes[0].patches) == len(rows)
        closed(fig)


@pytest.mark.parametrize(("part", "step"), [("azure", "azure"), ("hf", "convert")])
def test_the_two_steps_with_a_part_of_their_own_play_their_recording(part, step, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LABKIT_WITHOUT", part)
    options = {"model": "stdlib-10m", "threads": 1, "seed": 1, "quick": True, "results_path": str(tmp_path / "r.jsonl")}
    lab = start("03_model_acquisition", load=False, **options)
    rows = lab.step(step, lambda: pytest.fail("it ran"), needs=part)
    assert rows
    assert lab.missing is None
    assert lab.caption(step).startswith("RECORDED")
    assert f"--extra {part}" in capsys.readouterr().out
    if step == "convert":
        fig = acquiring_view.draw_formats(rows, lab.caption(step))
        assert len(fig.axes[0].patches) == 4
        closed(fig)


def test_the_official_client_resumes_inside_a_call_after_its_last_whole_piece():
    first, second = acquiring.official_rows()
    starts = [int(start.replace(",", "")) for start in first["start_bytes"].split(", ")]
    assert len(starts) == first["requests"] > 1
    assert starts[0] == 0 < min(starts[1:]) <= max(starts[1:]) < 0.6 * first["file_bytes"]
    assert (first["ended"] != "complete", second["ended"]) == (True, "complete")
