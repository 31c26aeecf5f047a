"""The same attention drawn by this package, CircuitsVis and BertViz: bytes of the page, whether it draws with no network, and when.

CircuitsVis and BertViz are measured where they are installed (``pip install --no-deps circuitsvis lazy_importer bertviz``).
"""

import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from playwright.sync_api import sync_playwright

import tensorscope_nb as ts

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def _pages(folder):
    """{tool: its page, or why there is none}: 2 layers × 4 heads × 64 tokens."""
    scope = ts.load("tiny")
    samples = ts.datasets.shakespeare(scope, n=1, length=64)
    found = ts.recipes.attention_patterns(scope, samples)
    values, tokens = torch.as_tensor(found["pattern"].values[0]), samples.token_strings(0)
    pages = {"tensorscope_nb": ts.export_html(ts.view(found), folder / "ours.html")}

    def write(name, html):
        page = folder / f"{name}.html"
        page.write_text(f"<!doctype html><meta charset=utf-8><body>{html}")
        return page

    try:
        from circuitsvis.attention import attention_patterns

        pages["CircuitsVis (one layer)"] = write("circuitsvis", str(attention_patterns(tokens=tokens, attention=values[1])))
    except ImportError as error:
        pages["CircuitsVis"] = f"not measured: {error}"
    try:
        from bertviz import head_view

        pages["BertViz"] = write("bertviz", head_view([layer[None] for layer in values], tokens, html_action="return").data)
    except ImportError as error:
        pages["BertViz"] = f"not measured: {error}"
    return pages


def _seconds_to_draw(browser, page):
    """Seconds until a canvas or svg with something in it is there, all network refused; None after 5."""
    tab = browser.new_page()
    tab.route("**/*", lambda route: route.continue_() if route.request.url.startswith("file:") else route.abort())
    start = time.perf_counter()
    tab.goto(page.as_uri(), wait_until="commit")
    try:
        tab.wait_for_function(
            "() => [...document.querySelectorAll('canvas, svg')].some(e => e.getBoundingClientRect().width > 50)", timeout=5000
        )
        return time.perf_counter() - start
    except Exception:
        return None
    finally:
        tab.close()


def main() -> None:
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        for tool, page in _pages(Path(name)).items():
            if isinstance(page, str):
                print(f"{tool:<28} {page}")
                continue
            times = [_seconds_to_draw(browser, page) for _ in range(5)]
            drawn = "nothing is drawn" if None in times else f"drawn after {statistics.median(times):.2f} s"
            print(f"{tool:<28} {page.stat().st_size / 1024:8.0f} KB   with no network: {drawn}")
        browser.close()
