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
    assert "invalid choice: 'frobnicate'" in capsys.readouterr().err
