"""How long each notebook runs, from the start of its kernel to the end of its last cell."""

import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def main() -> None:
    for path in sorted((Path(__file__).parents[2] / "recipes").glob("*.ipynb")):
        start = time.perf_counter()
        NotebookClient(nbformat.read(path, as_version=4), timeout=300).execute()
        print(f"{f'{path.stem}, seconds':<64} {time.perf_counter() - start:6.1f}   goal < 30")
