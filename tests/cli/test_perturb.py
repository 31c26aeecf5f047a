"""``tensorscope perturb``: a list made before, some of its modules, the texts that were kept for it, and what is refused."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

import tensorscope_nb as ts
from tensorscope_nb.cli import main
from tensorscope_nb.cli.before import Before
from tensorscope_nb.cli.texts import read_texts
from tensorscope_nb.recipes import critical_weights, perturbation
from tensorscope_nb.samples.corpora import corpus

LINES = [line for line in corpus("shakespeare").split("\n") if 30 < len(line) < 50][:40]
LIST = "top_20_weights_grad_x_weight.csv"
QUICK = ("--ratios", 1, "--n-seeds", 2)


def called(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a ranking, and the file of texts beside it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "texts.txt").write_text("\n".join(LINES[:20]))
    asked = ["--model", "tiny", "--metric", "grad_x_weight", "--top", 20, "--eval-limit", 8, "--seed", 4, "--n-seeds", 3]
    data = ["--data-file", folder / "texts.txt", "--out", folder / "out"]
    assert called("critical-weights", *asked, *data, "--perturbation-ratios", 0.5, 1) == 0
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy of it, in which the manifest names the texts by a path of its own."""
    monkeypatch.delenv("TARGET_LAYER", raising=False)
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    manifest = tmp_path / "out" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(str(made), str(tmp_path)))
    return tmp_path


@pytest.fixture(scope="module")
def tiny():
    return ts.load("tiny")


def results(folder):
    return pd.read_csv(folder / "targeted_results.csv"), json.loads((folder / "targeted_summary.json").read_text())


def refused(capsys, *arguments):
    """The one line that an error of use is."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        called("perturb", *arguments)
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert ended.value.code == 2 and len(lines) == 1 and lines[0].startswith("tensorscope perturb: error: ")
    return lines[0]


def test_the_modules_that_the_list_names_most_feed_the_next_run(folder, tiny, capsys):
    top_weights = pd.read_csv(folder / "out" / LIST)
    critical_layers = top_weights["layer"].value_counts().head(5).index.tolist()
    assert (
        called("perturb", "--weights", folder / "out" / LIST, "--module", *critical_layers, *QUICK, "--out", folder / "next") == 0
    )
    table, summary = results(folder / "next")
    manifest, file = Before.beside(folder / "out" / LIST), read_texts(str(folder / "texts.txt"))
    evaluation = tiny.samples([text.text for text in manifest.measured_with(file)])
    assert table["module"].unique().tolist() == critical_layers == list(summary["modules"])
    for module in critical_layers:
        expected = perturbation(tiny, evaluation, folder / "out" / LIST, modules=module, n_seeds=2, seed=4)
        of_module = table[table["module"] == module]
        assert of_module["listed_in_module"].unique().item() == (top_weights["layer"] == module).sum()
        for row in of_module.itertuples():
            run = expected.sel(selection=row.selection, ratio=1.0, replicate=row.replicate)
            assert row.loss_increase == pytest.approx(float(run["loss_increase"]), abs=1e-7)
            assert row.weights_masked == (top_weights["layer"] == module).sum() and row.eval_texts_count == 8
        assert of_module["selection"].tolist() == ["top", "random", "random", "bottom"]
        effect = next(e for e in summary["modules"][module]["effects"] if e["selection"] == "top")
        assert effect["loss_increase"] == pytest.approx(
            float(expected["loss_increase_mean"].sel(selection="top", ratio=1.0)), abs=1e-7
        )
    assert f"{critical_layers[0]}: loss increase in nats at share 1" in capsys.readouterr().out
    assert set(summary["files"]) == {file.name for file in (folder / "next").iterdir()}
    assert set(summary["files"]) == {"targeted_results.csv", "targeted_summary.json", "targeted_analysis.log"}


def test_the_whole_list_on_the_same_texts_gives_what_the_first_run_gave(folder):
    assert called("perturb", "--weights", folder / "out" / LIST, "--ratios", 0.5, 1, "--n-seeds", 3) == 0
    table, summary = results(folder / "out" / "perturb_all")
    before = pd.read_csv(folder / "out" / "perturbation_results.csv")
    shared = [name for name in before if name in table and name != "method"]
    pd.testing.assert_frame_equal(table[shared], before[shared], rtol=1e-4, atol=1e-6)
    check, manifest = summary["baseline_check"], json.loads((folder / "out" / "manifest.json").read_text())
    assert check["compared"] and check["recorded_perplexity"] == pytest.approx(manifest["evaluation"]["baseline_perplexity"])
    assert summary["evaluation"]["fingerprint"] == manifest["evaluation"]["fingerprint"] and summary["seed"] == 4


def test_target_layer_is_used_where_no_module_is_given(folder, monkeypatch):
    layer = pd.read_csv(folder / "out" / LIST)["layer"].value_counts().index[0]
    monkeypatch.setenv("TARGET_LAYER", f" {layer}.weight, {layer},")
    assert called("perturb", "--weights", folder / "out" / LIST, *QUICK, "--out", folder / "a") == 0
    table, _ = results(folder / "a")
    assert table["module"].unique().tolist() == [f"{layer}.weight", layer]
    assert called("perturb", "--weights", folder / "out" / LIST, *QUICK, "--module", "transformer.h.*") == 0
    assert results(folder / "out" / "perturb_transformer.h._")[0]["module"].unique().tolist() == ["transformer.h.*"]


def test_a_parameter_and_its_module_are_the_same_where_it_has_no_other_listed(folder):
    top = pd.read_csv(folder / "out" / LIST)
    layer = next(name for name, rows in top.groupby("layer") if set(rows["parameter"]) == {f"{name}.weight"})
    assert (
        called("perturb", "--weights", folder / "out" / LIST, *QUICK, "--module", layer, f"{layer}.weight", "--out", folder / "a")
        == 0
    )
    table, _ = results(folder / "a")
    one, other = (rows.drop(columns="module").reset_index(drop=True) for _, rows in table.groupby("module"))
    pd.testing.assert_frame_equal(one, other)


def test_without_a_bottom_list_that_control_is_left_out_and_this_is_said(folder, capsys):
    (folder / "out" / LIST.replace("top_", "bottom_")).unlink()
    assert called("perturb", "--weights", folder / "out" / LIST, *QUICK, "--method", "sign_flip", "--out", folder / "a") == 0
    table, summary = results(folder / "a")
    assert set(table["selection"]) == {"top", "random"} and summary["controls"] == ["random"]
    assert "there is no bottom list beside" in capsys.readouterr().err
    assert called("perturb", "--weights", folder / "out" / LIST, *QUICK, "--controls", "none", "--out", folder / "b") == 0
    assert set(results(folder / "b")[0]["selection"]) == {"top"}


def test_other_texts_are_measured_with_and_nothing_is_compared(folder, capsys):
    before = Before.beside(folder / "out" / LIST)
    ranked = [text.text for text in before.ranked_with(before.own_file())]
    (folder / "other.json").write_text(json.dumps([*ranked[:5], *LINES[20:30]]))
    assert (
        called("perturb", "--weights", folder / "out" / LIST, *QUICK, "--data-file", folder / "other.json", "--out", folder / "a")
        == 0
    )
    _, summary = results(folder / "a")
    assert not summary["baseline_check"]["compared"] and "recorded_perplexity" not in summary["baseline_check"]
    assert "baselines are not comparable: the texts are other ones" in capsys.readouterr().err
    assert summary["evaluation"]["n_texts"] == 8
    assert called("perturb", "--weights", folder / "out" / LIST, *QUICK, "--data-file", folder / "other.json", "--eval-limit", 50, "--out", folder / "b") == 0  # fmt: skip
    _, summary = results(folder / "b")
    assert {int(place.removeprefix("entry ")) for place in summary["evaluation"]["places"]} == set(range(5, 15))
    assert "10 texts to measure with (50 were asked for: there are no more)" in capsys.readouterr().err
    (folder / "texts.txt").unlink()
    assert (
        called("perturb", "--weights", folder / "out" / LIST, *QUICK, "--data-file", folder / "other.json", "--out", folder / "c")
        == 0
    )
    assert "whether some of these are among them is not known" in capsys.readouterr().err


def test_fewer_of_the_texts_or_shorter_ones_are_other_data(folder, capsys):
    for n, more in enumerate((["--eval-limit", 4], ["--max-length", 6])):
        assert called("perturb", "--weights", folder / "out" / LIST, *QUICK, *more, "--out", folder / str(n)) == 0
        assert "baselines are not comparable: the texts are other ones" in capsys.readouterr().err
    assert results(folder / "0")[1]["evaluation"]["places"] == Before.beside(folder / "out" / LIST).evaluation["places"][:4]


def test_texts_that_become_those_of_the_ranking_when_they_are_cut_shorter_are_left_out(tmp_path, tiny):
    alike = [f"{line} {end}" for line in LINES[:12] for end in ("and so on", "but not so")]
    (tmp_path / "texts.txt").write_text("\n".join(alike))
    asked = ["--model", "tiny", "--data-file", tmp_path / "texts.txt", "--top", 4, "--no-perturbation", "--out", tmp_path]
    assert called("critical-weights", *asked) == 0
    path = tmp_path / "top_4_weights_grad_x_weight.csv"
    assert called("perturb", "--weights", path, *QUICK, "--max-length", 6, "--out", tmp_path / "a") == 0
    places, before = results(tmp_path / "a")[1]["evaluation"]["places"], Before.beside(path)
    file = before.own_file()

    def cut(texts):
        return {tuple(tiny.tokenizer(text.text)["input_ids"][:6]) for text in texts}

    assert cut(before.measured_with(file)) & cut(before.ranked_with(file))
    assert 2 <= len(places) < 12 and not cut(file.at(places)) & cut(before.ranked_with(file))


def test_a_file_that_was_changed_is_refused_and_the_same_bytes_elsewhere_are_the_same(folder, capsys):
    shutil.copy(folder / "texts.txt", folder / "moved.txt")
    (folder / "texts.txt").write_text("\n".join([*LINES[:19], "Another line."]))
    line = refused(capsys, "--weights", folder / "out" / LIST)
    assert "texts.txt is not what it was when the list was made" in line and "give --data-file" in line
    assert called("perturb", "--weights", folder / "out" / LIST, *QUICK, "--data-file", folder / "moved.txt") == 0
    assert results(folder / "out" / "perturb_all")[1]["baseline_check"]["compared"]
    (folder / "texts.txt").unlink()
    assert "the data file that" in refused(capsys, "--weights", folder / "out" / LIST)


def test_a_baseline_that_is_another_on_the_same_texts_and_weights_is_an_error(folder, capsys):
    path = folder / "out" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["evaluation"]["baseline_loss"] *= 1.001
    manifest["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(manifest))
    line = refused(capsys, "--weights", folder / "out" / LIST, *QUICK)
    said = np.exp(manifest["evaluation"]["baseline_loss"])
    assert f"manifest.json says {said:.6g} of the same texts and weights" in line and "(then torch 1.0, here " in line
    assert not (folder / "out" / "perturb_all" / "targeted_results.csv").exists()


def test_a_list_of_another_checkpoint_is_refused(folder, capsys):
    line = refused(capsys, "--weights", folder / "out" / LIST, "--checkpoint", 600)
    assert "is of other weights than tiny@600 has" in line


def test_a_list_alone_needs_a_model_and_texts_and_may_say_little(folder, tiny, capsys):
    lonely = folder / "mine.csv"
    top = pd.read_csv(folder / "out" / LIST)
    top.assign(layer=top["parameter"])[["rank", "layer", "indices", "sensitivity"]].to_csv(lonely, index=False)
    assert "so what the list is of is not known: give --model" in refused(capsys, "--weights", lonely)
    assert "so its texts are not known: give --data-file" in refused(capsys, "--weights", lonely, "--model", "tiny")
    asked = ["--weights", lonely, "--model", "tiny", "--data-file", folder / "texts.txt", *QUICK, "--out", folder / "a"]
    assert called("perturb", *asked) == 0
    _, summary = results(folder / "a")
    assert not summary["baseline_check"]["compared"] and summary["evaluation"]["n_texts"] == 20
    assert any("does not say which model's weights" in note for note in summary["modules"]["all"]["notes"])
    said = capsys.readouterr().err
    assert "no bottom list" in said and "whether some of these are among them is not known" in said
    assert "there is no manifest.json beside the list" in said


@pytest.mark.parametrize(
    ("changes", "says"),
    {
        "no list": (["--weights", "no.csv"], "there is no list no.csv"),
        "unknown module": (["--module", "transformer.h.0.atn.c_attn"], "did you mean transformer.h.0.attn.c_attn"),
        "nothing there": (["--module", "transformer.wpe"], "no weight of the list is in 'transformer.wpe': there are some in"),
        "unknown method": (["--method", "halve"], "invalid choice: 'halve'"),
        "unknown control": (["--controls", "none", "bottom"], "none goes with no other"),
        "no data": (["--data-file", "no.txt"], "there is no data file no.txt"),
        "unreadable": (["--data-file", "/"], "the data file / cannot be read"),
    }.values(),
)  # fmt: skip
def test_what_cannot_be_done_is_one_line_and_exit_code_2(folder, capsys, changes, says):
    assert says in refused(capsys, "--weights", folder / "out" / LIST, *changes)


def test_a_module_without_listed_weights_is_found_out_before_anything_is_measured(folder, tiny, capsys, monkeypatch):
    quiet = set(dict(tiny.model.named_modules())) - set(pd.read_csv(folder / "out" / LIST)["layer"])
    assert "transformer.wpe" in quiet
    monkeypatch.setattr(ts.Scope, "perplexity", lambda *_, **__: pytest.fail("measured"))
    refused(capsys, "--weights", folder / "out" / LIST, "--module", "transformer.wpe")
    assert not (folder / "out" / "perturb_transformer.wpe").exists()  # no folder that looks as if something had been done


def test_a_manifest_of_another_program_is_refused(folder, capsys):
    for content in ("{", "[]", "{}", '{"format": 99}'):
        (folder / "out" / "manifest.json").write_text(content)
        assert "is damaged, or of another program" in refused(capsys, "--weights", folder / "out" / LIST)


def test_an_earlier_run_is_kept_unless_it_is_to_be_replaced(folder, capsys):
    asked = ["--weights", folder / "out" / LIST, *QUICK]
    assert called("perturb", *asked) == 0
    assert "holds the files of an earlier run" in refused(capsys, *asked)
    assert called("perturb", *asked, "--overwrite") == 0


def test_the_prediction_is_by_gradient_and_curvature_or_by_the_gradient_alone(folder, tiny):
    manifest = Before.beside(folder / "out" / LIST)
    evaluation = tiny.samples([text.text for text in manifest.measured_with(manifest.own_file())])
    expected = perturbation(tiny, evaluation, folder / "out" / LIST, n_seeds=2, seed=4).isel(ratio=0)
    for more, by in (([], "second_order"), (["--first-order"], "first_order")):
        assert called("perturb", "--weights", folder / "out" / LIST, *QUICK, *more, "--out", folder / by) == 0
        for row in results(folder / by)[0].itertuples():
            mean = float(expected[by].sel(selection=row.selection).mean())
            assert row.predicted == pytest.approx(mean, rel=1e-3, abs=1e-6)
    assert abs(float((expected["first_order"] - expected["second_order"]).sel(selection="top")[0])) > 0.01


def test_the_list_of_the_command_is_that_which_the_recipe_reads(folder, tiny):
    before = Before.beside(folder / "out" / LIST)
    calibration = tiny.samples([text.text for text in before.ranked_with(before.own_file())])
    from_result = critical_weights(tiny, calibration, top=20, seed=4)
    evaluation = tiny.samples(LINES[20:24])
    one, other = (
        perturbation(tiny, evaluation, weights, n_seeds=2, seed=4)["loss_increase"]
        for weights in (from_result, folder / "out" / LIST)
    )
    np.testing.assert_allclose(one.values, other.values, atol=1e-7)
