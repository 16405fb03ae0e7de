"""The report page: what is in it, that it stands alone, and that recorded runs say so."""

import base64
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from urllib.parse import unquote

import nbformat
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from labkit.core import machine, results
from labkit.core.errors import BadInput
from labkit.core.records import Marks, Measurement, RunRecord
from labkit.teach import report, report_plots


def measured(model, threads, rate=100.0, prompt=10):
    """A request at `rate` tokens/s of decode, its first token after 0.1 s."""
    marks = Marks(start=0, first=10**8, last=10**8 + int(20 / rate * 1e9))
    return Measurement(
        model=model, engine="llamacpp", prompt_tokens=prompt, cached_tokens=0, output_tokens=21, marks_ns=marks, threads=threads
    )


def line(lab, step, rows, source="measured"):
    return {
        "schema": 1, "lab": lab, "step": step, "source": source, "machine": machine.fingerprint(),
        "timestamp": "2026-01-02T03:04:05+00:00", "parameters": {}, "rows": [row.model_dump(mode="json") for row in rows],
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A batch of a lab over two thread counts, one of them recorded, and an instructor's notebook that failed."""
    folder = tmp_path / "a folder"
    png = figure_png()
    for number, (threads, source) in enumerate([(1, "measured"), (2, "recorded")]):
        run = RunRecord(
            run_id=f"{number}" * 16, lab="01_first_model", parameters={"threads": threads, "seed": 1}, status="ok", source=source,
            seconds=12.34, peak_memory_bytes=456_000_000, notebook=f"/elsewhere/{number}.ipynb",
        )  # fmt: skip
        place = folder / "runs" / run.run_id
        place.mkdir(parents=True)
        rates = [90.0, 100.0, 110.0] if threads == 1 else [50.0, 60.0]
        results.append(place / "results.jsonl", [line(run.lab, "bench", [measured("smollm2", threads, r) for r in rates], source)])
        output = nbformat.v4.new_output("display_data", data={"image/png": png, "text/plain": "<Figure>"})
        cells = [nbformat.v4.new_markdown_cell("# Lab\n\n## How *fast* is <it>?"), nbformat.v4.new_code_cell("plot()", outputs=[output])]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), place / "01_first_model.ipynb")
        results.append(folder / "runs.jsonl", [run])
    bad = {"run_id": "2" * 16, "lab": "own", "parameters": {"name": "<script>alert(1)</script>"}, "status": "failed", "error": "E: a < b"}
    results.append(folder / "runs.jsonl", [RunRecord.model_validate(bad)])
    return folder


def figure_png():
    figure = Figure(figsize=(4, 3))
    figure.subplots().plot([1, 3, 2])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


class Page(HTMLParser):
    """Tags with their attributes, and the visible text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self._quiet = [], "", 0
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._quiet += tag == "style"

    def handle_endtag(self, tag):
        self._quiet -= tag == "style"

    def handle_data(self, data):
        self.text += "" if self._quiet else data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_tells_every_run_and_stands_alone(folder):
    path = report.write(folder)
    assert path == folder / "index.html"
    page = Page(path)
    text = " ".join(page.text.split())
    for words in (
        "2 of 3 runs ok", "01_first_model", "threads=1, seed=1", "✓ ok", "12.3", "456", "✗ failed", "E: a < b",
        machine.fingerprint()["cpu"], "Recorded on", "2026-01-02", "labkit 0.", "How fast is <it>?", "name=<script>alert(1)</script>",
    ):  # fmt: skip
        assert words in text, words
    assert not page.all("script")  # the parameter's text is text
    assert not page.all("link")
    assert all(image["src"].startswith("data:image/png;base64,iVBOR") and len(image["alt"]) > 10 for image in page.all("img"))
    assert len(page.all("img")) == 3  # one comparison, two figures
    assert "http" not in re.sub(r"base64,[^\"]*", "", path.read_text())
    links = [a["href"] for a in page.all("a")]
    assert len(links) == 2
    assert all((folder / unquote(link)).is_file() for link in links)


def test_recorded_runs_are_labelled_wherever_they_show(folder):
    html = report.write(folder).read_text()
    table, details = html.split("</table>", 1)
    assert table.count('class="badge">recorded') == 2  # the sentence above the table, and the row
    assert details.count('class="badge">recorded') == 2  # the summary of the run's figures, and its one figure
    assert "smollm2, 2 threads (recorded)" in details
    for file in (folder / "runs.jsonl", *folder.glob("runs/*/results.jsonl")):
        file.write_text(file.read_text().replace('"recorded"', '"measured"'))
    assert "recorded on" not in report.write(folder).read_text().lower()
    assert 'class="badge"' not in report.write(folder).read_text()


def test_a_page_elsewhere_links_back(folder, tmp_path):
    page = report.write(folder, tmp_path / "site" / "deep" / "labs.html")
    assert page.name == "labs.html"
    assert all((page.parent / unquote(a["href"])).is_file() for a in Page(page).all("a"))
    assert report.write(folder, tmp_path / "site") == tmp_path / "site" / "index.html"


def test_the_newest_record_of_a_run_counts_and_torn_files_do_no_harm(folder):
    same = {"name": "<script>alert(1)</script>"}
    again = RunRecord(run_id="3" * 16, lab="own", parameters=same, status="ok", seconds=1.0, peak_memory_bytes=1)
    results.append(folder / "runs.jsonl", [again])
    with (folder / "runs.jsonl").open("a") as file:
        file.write('{"run_id": "torn')
    (folder / "runs" / ("0" * 16) / "01_first_model.ipynb").write_text('{"cells": [{"cut')
    (folder / "runs" / ("1" * 16) / "results.jsonl").write_text("somebody's own file\n")
    assert "3 of 3 runs ok" in report.write(folder).read_text()


def test_comparisons_give_median_interval_and_n(folder):
    def bars(grid, *steps):
        runs = [(RunRecord(run_id="0", lab="l", parameters=p, status="ok"), [line("l", *step) for step in steps]) for p in grid]
        return [(c.step, [(b.label, b.spreads["decode_tokens_per_s"]) for b in c.bars]) for c in report_plots.comparisons(runs)]

    same = ("bench", [measured("a", 1, 90), measured("a", 1, 110), measured("a", 1, 100), measured("b", 2, 50)])
    prompts = ("prompts", [measured("a", 1, prompt=5), measured("a", 1, prompt=50), measured("b", 1)])
    ((step, (first, second)),) = bars([{"model": "a"}, {"model": "b"}], same, prompts)
    assert step == "bench"  # `prompts` varies the prompt: its requests are not alike
    assert first[0] == "a, 1 thread"
    assert first[1].n == 6
    assert first[1].median == pytest.approx(100)
    assert first[1].low >= 90
    assert second[0] == "b, 2 threads"
    assert bars([{"model": "a"}, {"model": "a", "seed": 2}], same) == []  # the grid compares nothing


def test_the_table_for_the_terminal(folder):
    console = Console(width=100, file=io.StringIO(), color_system=None)
    console.print(report.table(RunRecord.model_validate(row) for row in results.read(folder / "runs.jsonl")))
    said = console.file.getvalue()
    for words in ("01_first_model", "✓ ok", "RECORDED", "measured", "12.3", "456", "✗ failed", "E: a < b", "name=<script>"):
        assert words in said, words


@pytest.mark.parametrize("prepare", [lambda folder: shutil.rmtree(folder), lambda folder: (folder / "runs.jsonl").unlink()])
def test_a_folder_without_runs_is_refused(folder, prepare):
    prepare(folder)
    with pytest.raises(BadInput, match="holds no runs"):
        report.write(folder)


def test_a_browser_shows_it(folder, tmp_path, needs):
    page, picture = report.write(folder), tmp_path / "page.png"
    command = [
        needs("chromium"),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=900,1400",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    subprocess.run([*command, f"--screenshot={picture}", page.resolve().as_uri()], capture_output=True, check=True, timeout=120)
    import matplotlib.image

    pixels = matplotlib.image.imread(picture)
    assert pixels.shape[:2] == (1400, 900)
    assert len({tuple(colour) for row in pixels[::20] for colour in (row[::20] * 255).astype(int).tolist()}) > 10
    assert pixels.std() > 0.01  # not an empty page
