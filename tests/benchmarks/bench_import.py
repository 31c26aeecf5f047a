"""What ``import tensorscope_nb`` costs, and that it brings no heavy library."""

import statistics
import subprocess
import sys

HEAVY = ("torch", "transformers", "xarray", "anywidget", "nnsight", "pandas", "numpy")
CODE = f"""
import sys, time
start = time.perf_counter()
import tensorscope_nb
print(time.perf_counter() - start, *[name for name in {HEAVY} if name in sys.modules])
"""


def main() -> None:
    runs = [
        subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout.split() for _ in range(5)
    ]
    seconds = statistics.median(float(run[0]) for run in runs)
    print(f"{'import tensorscope_nb, seconds':<64} {seconds:6.3f}   goal < 0.3")
    print(f"{'heavy libraries that it imports':<64} {len(runs[0]) - 1:6d}   goal 0")
