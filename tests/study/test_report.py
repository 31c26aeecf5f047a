import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from study.killing import failing_report, limit_files
from tiny_models import random_gpt2
from views.conftest import page_of  # noqa: F401  a fixture

import tensorscope_nb as ts
from tensorscope_nb.study.report import write_report

IDS = torch.randint(50, (3, 9), generator=torch.Generator().manual_seed(1))
EVIL = "</script><script>document.title='broken'</script>| `x` \n\ud800"
KINDS = [".md", ".json", ".html"]


def heads(**said: Any) -> xr.Dataset:
    """A result with every kind of variable, whose texts are all hostile."""
    evil = np.array([EVIL, "plain"], dtype=object)
    return xr.Dataset(
        {
            "score": (("layer", "head"), np.array([[0.125, np.nan, 2.0], [0.5, np.inf, 1.0]]), {"units": f"nats {EVIL}", "long_name": EVIL}),
            "dead": ("layer", np.array([True, False])),
            "n": ("layer", np.array([196608, 3])),
            "total": ((), 0.25),
            "never": ("layer", np.full(2, np.nan)),
            "token": ("sample", evil),
            "loss": ("sample", np.array([1.0, 2.0])),
            EVIL: ("layer", np.zeros(2)),
        },
        {"layer": [0, 1], "head": [0, 1, 2], "sample": ["a", "b"], "text": ("sample", evil)},
        {"tensorscope": json.dumps({"recipe": "ablation", "source": EVIL, "model": EVIL, "weights": "c0ffee", "n_used": 12, "seed": 0, "options": {"method": EVIL, "chunk": None}, **said})},
    )  # fmt: skip


def scalars() -> xr.Dataset:
    return xr.Dataset({"total": ((), 0.25, {"units": "nats"})}, attrs={"tensorscope": json.dumps({"model": "tiny", "n_used": 1})})


def text_of(page: Any) -> str:
    return page.locator(".report").inner_text()


def test_reports_hold_the_numbers(tmp_path):
    study = ts.Study(ts.Scope(random_gpt2()), IDS[:1]).run(ts.recipes.ablation)
    text = study.report(tmp_path / "report.md").read_text()
    value = study["ablation"]["loss_increase"].values
    assert (
        f"| `loss_increase` | layer 2 × head 3 | nats per token | {value.mean():.4g} | {value.min():.4g} | {value.max():.4g} |"
        in text
    )
    assert ts.recipes.ablation.question.rstrip("?") in text and "1 sample;" in text
    stored = json.loads(study.report(tmp_path / "report.json").read_text())["ablation"]
    assert np.allclose(stored["data"]["data_vars"]["loss_increase"]["data"], value)
    assert stored["data"]["data_vars"]["ci_low"]["data"][0][0] is None and stored["metadata"]["n_used"] == 1
    page = study.report(tmp_path / "report.html").read_text()
    assert f'<td class="number">{value.mean():.4g}</td><td class="number">{value.min():.4g}</td>' in page
    assert ts.recipes.ablation.question in page and "Study of" in page and 'id="bundle"' in page


def test_reports_hold_the_notes(tmp_path):
    study = ts.Study(ts.Scope(random_gpt2()), IDS[:1]).run(ts.recipes.critical_weights.using(top=3))
    says = "there are no intervals: one sample cannot be split"
    assert f"- Note: {says}" in study.report(tmp_path / "report.md").read_text()
    assert f'<p class="note">{says}</p>' in study.report(tmp_path / "report.html").read_text()


def test_ranges_are_of_what_is_finite(tmp_path):
    text = write_report({"r": heads()}, tmp_path / "r.md").read_text()
    assert "| 0.9062 | 0.125 | 2 | 2 |" in text and "| 9.831e+04 | 3 | 196608 |" in text
    assert "| `dead` | layer 2 |  | 1 of 2 true |" in text and "| `total` | – |  | 0.25 |" in text
    assert "| `never` | layer 2 |  | nothing |  |  | 2 |" in text
    stored = json.loads(write_report({"r": heads()}, tmp_path / "r.json").read_text(), parse_constant=pytest.fail)
    assert stored["r"]["data"]["data_vars"]["score"]["data"][1] == [0.5, None, 1.0]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"n_used": 12, "n_available": 64}, "12 of 64 samples"),
        ({"n_used": 12, "n_done": 3, "n_members": 8}, "3 of 8 models"),
        ({"n_used": 12}, "interrupted"),
    ],
)
def test_what_is_partial_says_so(tmp_path, said, shown):
    results = {"whole": heads(n_available=12), "part": heads(partial=True, **said)}
    text = write_report(results, tmp_path / "r.md").read_text()
    assert text.count("**Partial**") == 1 and f"had done, {shown}." in text.split("## part")[1]
    stored = json.loads(write_report(results, tmp_path / "r.json").read_text())
    assert [stored[name]["partial"] for name in results] == [False, True]
    page = write_report(results, tmp_path / "r.html").read_text()
    assert page.count(f'<span class="partial">partial: {shown}</span>') == 1 == page.count("partly of interrupted runs</h1>")


def test_markdown_cannot_be_left(tmp_path):
    text = write_report({"r": heads()}, tmp_path / "r.md").read_text()
    assert not re.search(r"(?<!\\)<", text)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {9} and len(rows) == 2 + 8


def test_a_page_of_single_numbers_has_the_table_alone(tmp_path):
    text = write_report({"r": scalars()}, tmp_path / "r.html").read_text()
    assert "<script" not in text and '<td colspan="3" class="number">0.25</td>' in text and "<h1>Study of tiny</h1>" in text


@pytest.mark.parametrize("kind", KINDS)
def test_no_results_no_report(tmp_path, kind):
    with pytest.raises(ValueError, match=r"^the study holds no results: run a recipe before you report$"):
        ts.Study(ts.Scope(random_gpt2())).report(tmp_path / f"r{kind}")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*: make it first"):
        write_report({"r": heads()}, tmp_path / "none" / f"r{kind}")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match=r"let it end in \.md, \.json or \.html"):
        write_report({"r": heads()}, tmp_path / "r.pdf")


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_that_fails_leaves_the_earlier_one(tmp_path, kind):
    path = tmp_path / f"r{kind}"
    path.write_text("earlier")
    kind, text, ended = failing_report(path, limit_files, 100)
    assert (kind, ended) == ("OSError", 0)
    assert text == f"the report could not be written to {str(path)!r}: File too large; an earlier file is as it was"
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and path.read_text() == "earlier"


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    os.symlink(tmp_path / "there" / "r.md", tmp_path / "r.md")
    write_report({"r": heads()}, tmp_path / "r.md")
    assert (tmp_path / "r.md").is_symlink() and "# Study" in (tmp_path / "there" / "r.md").read_text()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_works_from_a_file(tmp_path, page_of, scheme):  # noqa: F811
    page = page_of(write_report({"r": heads(partial=True, n_available=64)}, tmp_path / "r.html"), color_scheme=scheme)
    assert page.problems == [] and page.title().startswith("Study of </script><script>document.title")
    assert page.locator("[data-ts-view=HeadGrid] canvas").count() == 1 and page.locator(".report script").count() == 0
    shown = text_of(page)
    assert "partial: 12 of 64 samples" in shown and "<script>document.title='broken'</script>" in shown
    ink, ground = (page.evaluate(f"getComputedStyle(document.querySelector('{of}')).{what}") for of, what in ((".report td", "color"), ("body", "backgroundColor")))  # fmt: skip
    light, dark = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ground, ink))
    assert abs(light - dark) > 384 and (light > dark) == (scheme == "light")
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.querySelector('.report').scrollWidth <= innerWidth")


def test_the_page_asks_for_nothing(tmp_path):
    study = ts.Study(ts.Scope(random_gpt2()), IDS).run(ts.recipes.ablation.using(per_sample=True))
    text = study.report(tmp_path / "r.html").read_text()
    markup = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert "default-src &#x27;none&#x27;" in markup and not re.search(r"<link|<img|<iframe|url\(|@import|src=", markup)


def test_the_study_that_was_opened_reports_the_same(tmp_path: Path) -> None:
    study = ts.Study(ts.Scope(random_gpt2()), IDS).run(ts.recipes.ablation)
    again = ts.Study.open(study.save(tmp_path / "study"))
    for kind in (".md", ".json"):
        assert again.report(tmp_path / f"b{kind}").read_text() == study.report(tmp_path / f"a{kind}").read_text()
