import subprocess
import sys

import pytest

from tensorscope_nb.cli import main


def test_recipes_lists_each_with_its_question(capsys):
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("induction_heads") and "Which heads continue what came before?" in line for line in lines)
    assert len(lines) >= 3


def test_an_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["frobnicate"])
    said = capsys.readouterr().err
    assert said.startswith("tensorscope: error: ") and "invalid choice: 'frobnicate'" in said and said.count("\n") == 1


def test_help_and_mistakes_load_nothing_heavy():
    program = (
        "import sys\nfrom tensorscope_nb.cli import main\n"
        "for arguments in (['--help'], ['critical-weights', '--help'], ['perturb', '--help'], ['perturb', '--weights', 'no.csv']):\n"
        "    try:\n        main(arguments)\n    except SystemExit:\n        pass\n"
        "print(sorted({'torch', 'numpy', 'xarray', 'pandas', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("\n[]\n"), done.stdout + done.stderr
