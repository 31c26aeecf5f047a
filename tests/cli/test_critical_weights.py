"""``tensorscope critical-weights``: every file against the recipes called directly, which texts are used, and what is refused."""

import csv
import hashlib
import json
import shlex
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from tiny_models import random_gpt2

import tensorscope_nb as ts
from tensorscope_nb.cli import main, options
from tensorscope_nb.cli.controlled import controlled
from tensorscope_nb.cli.split import Reading, split
from tensorscope_nb.cli.texts import Text, read_texts
from tensorscope_nb.cli.usage import UseError
from tensorscope_nb.recipes import critical_weights, disturbance, perturbation, sensitivity, weight_table
from tensorscope_nb.samples.corpora import corpus
from tensorscope_nb.settings import GIGABYTE

LINES = [line for line in corpus("shakespeare").split("\n") if 30 < len(line) < 50][:28]
RATIOS = [0.5, 1.0]


def called(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Lines with an empty one and a repeated one among them."""
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join([*LINES[:5], "", *LINES[5:], LINES[2]]) + "\n")
    return path


@pytest.fixture(scope="module")
def asked(texts):
    return [
        "critical-weights", "--model", "tiny", "--metric", "grad_x_weight", "grad_squared", "--topk", 5, 12, "--data-file", texts,
        "--eval-limit", 8, "--calibration-limit", 10, "--perturbation-ratios", *RATIOS, "--n-seeds", 2, "--seed", 3,
        "--experiment-id", "one", "--output",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def out(asked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "out"
    assert called(*asked, folder) == 0
    return folder


@pytest.fixture(scope="module")
def tiny():
    return ts.load("tiny")


def read(folder, name):
    def refuse(literal):
        raise AssertionError(f"{name} holds {literal}")

    return json.loads((folder / name).read_text(), parse_constant=refuse)


def sides(folder, texts, scope):
    """The samples of both sides, from what the manifest says of them."""
    manifest, file = read(folder, "manifest.json"), read_texts(str(texts))
    return [
        scope.samples([text.text for text in file.at(manifest[side]["places"])], task=side)
        for side in ("calibration", "evaluation")
    ]


def test_every_list_is_that_of_the_recipe_on_the_texts_that_the_manifest_names(out, texts, tiny):
    calibration, _ = sides(out, texts, tiny)
    counted = read(out, "sensitivity_statistics.json")
    for metric in ("grad_x_weight", "grad_squared"):
        for k in (5, 12):
            with ts.options(seed=3, memory=GIGABYTE):
                expected = critical_weights(tiny, calibration, metric=metric, top=k)
            for part, bottom in (("top", False), ("bottom", True)):
                table = pd.read_csv(out / f"{part}_{k}_weights_{metric}.csv")
                pd.testing.assert_frame_equal(table, weight_table(expected, bottom=bottom), rtol=1e-15, atol=0)
                assert table.columns.tolist() == ["rank", "layer", "indices", "sensitivity", "value", "parameter", "fingerprint"]
                assert len(table) == k and table["indices"].str.fullmatch(r"\(\d+,( \d+)?\)").all()
            saved = xr.load_dataset(out / f"critical_top_{k}_weights_{metric}.nc", engine="h5netcdf")
            for name in expected.data_vars:
                np.testing.assert_array_equal(saved[name].values, expected[name].values)
            modules = counted[metric][f"top_{k}"]["modules"]
            assert list(modules) == expected["module"].values.tolist()
            assert counted[metric][f"top_{k}"]["n_weights"] == 211_200
            for name, of_module in modules.items():
                for variable, value in of_module.items():
                    assert value == expected[variable].sel(module=name).item()
    assert {"n_critical", "enrichment", "enrichment_ci_low", "enrichment_ci_high", "total"} <= of_module.keys()


def test_a_weight_of_the_list_is_found_where_its_row_says(out, tiny):
    parameters = dict(tiny.model.named_parameters())
    for row in pd.read_csv(out / "top_12_weights_grad_x_weight.csv").itertuples():
        place = tuple(map(int, row.indices.strip("(),").split(", ")))
        assert parameters[row.parameter][place].item() == pytest.approx(row.value, rel=1e-15)
        assert row.parameter.rpartition(".")[0] == row.layer


def test_the_perturbation_is_that_of_the_recipe_and_its_table_is_arithmetic(out, texts, tiny):
    calibration, evaluation = sides(out, texts, tiny)
    table = pd.read_csv(out / "perturbation_results.csv")
    assert table.columns[:9].tolist() == [
        "metric", "topk", "method", "mask_ratio", "weights_masked", "baseline_ppl", "perturbed_ppl", "ppl_increase", "ppl_ratio"
    ]  # fmt: skip
    assert set(table.columns[9:]) == {
        "selection", "replicate", "loss_increase", "ci_low", "ci_high", "predicted", "eval_texts_count"
    }  # fmt: skip
    assert (table["eval_texts_count"] == 8).all()
    critical = critical_weights(tiny, calibration, metric="grad_squared", top=12, seed=3)
    expected = perturbation(tiny, evaluation, critical, ratios=RATIOS, n_seeds=2, seed=3)
    rows = table[(table["metric"] == "grad_squared") & (table["topk"] == 12)]
    assert rows.groupby("selection").size().to_dict() == {"top": 2, "random": 4, "bottom": 2}
    for row in rows.itertuples():
        at = expected.sel(selection=row.selection, ratio=row.mask_ratio)
        run = at.sel(replicate=row.replicate)
        assert row.loss_increase == pytest.approx(float(run["loss_increase"]), abs=1e-7)
        assert (row.ci_low, row.ci_high) == pytest.approx((float(at["ci_low"]), float(at["ci_high"])), abs=1e-6)
        assert row.predicted == pytest.approx(float(at["predicted"]), rel=1e-3, abs=1e-7)
        assert row.weights_masked == {0.5: 6, 1.0: 12}[row.mask_ratio]
        assert row.perturbed_ppl == pytest.approx(row.baseline_ppl * np.exp(row.loss_increase))
        assert row.ppl_increase == pytest.approx(row.perturbed_ppl - row.baseline_ppl)
        assert row.ppl_ratio == pytest.approx(row.perturbed_ppl / row.baseline_ppl)
    zeroed = critical.isel(weight=slice(6))
    model = ts.load("tiny").model  # of its own: it is changed by hand
    for name, index in zip(zeroed["parameter_name"].values, zeroed["index"].values, strict=True):
        model.get_parameter(name).data.view(-1)[index] = 0
    by_hand = ts.Scope(model, tiny.tokenizer).perplexity(evaluation).value
    assert rows[(rows["selection"] == "top") & (rows["mask_ratio"] == 0.5)]["perturbed_ppl"].item() == pytest.approx(by_hand)


def test_the_manifest_says_what_it_was_found_on(out, texts, tiny, asked):
    manifest, summary = read(out, "manifest.json"), read(out, "experiment_summary.json")
    calibration, evaluation = sides(out, texts, tiny)
    assert manifest["data"]["path"] == str(texts) and manifest["data"]["sha256"] == hashlib.sha256(texts.read_bytes()).hexdigest()
    for side, samples, n in (("calibration", calibration, 10), ("evaluation", evaluation, 8)):
        said = manifest[side]
        assert said["fingerprint"] == samples.fingerprint and said["n_texts"] == n
        assert said["n_tokens"] == int(samples.lengths.sum()) and said["n_predicted"] == int(samples.lengths.sum()) - n
    assert manifest["model"]["weights"] == weight_table(critical_weights(tiny, calibration, top=1))["fingerprint"][0]
    assert manifest["evaluation"]["baseline_perplexity"] == tiny.perplexity(evaluation).value
    assert manifest["command"] == shlex.join(["tensorscope", *map(str, asked), str(out)]) and manifest["seed"] == 3
    assert {"tensorscope_nb", "torch", "transformers", "python", "numpy"} <= manifest["versions"].keys()
    assert manifest["started"] <= manifest["finished"]
    assert set(summary["files"]) == {file.name for file in out.iterdir()}
    assert summary["experiment_id"] == "one" and summary["eval_texts_count"] == 8 and summary["texts_in_file"] == 29
    assert read(out, "config.json")["top"] == [5, 12] and read(out, "config.json")["device"] == "auto"
    effect = next(e for e in summary["results"][0]["perturbation"]["zero"] if (e["selection"], e["ratio"]) == ("random", 1.0))
    assert effect["excess_ci_low"] < effect["excess"] < effect["excess_ci_high"]


def test_the_report_says_how_stable_a_list_is_and_what_was_measured(out):
    report = (out / "report.md").read_text()
    for metric in ("grad_x_weight", "grad_squared"):
        for k in (5, 12):
            critical = xr.load_dataset(out / f"critical_top_{k}_weights_{metric}.nc", engine="h5netcdf")
            section = report.split(f"## {metric}, top {k}\n")[1].split("\n## ")[0]
            assert f"Mean stability {float(critical['stability'].mean()):.2f}: " in section
            most = str(critical["n_critical"].idxmax().item())
            assert f"| `{most}` | {int(critical['n_critical'].max())} | " in section
            measured = xr.load_dataset(out / f"perturbation_top_{k}_weights_{metric}_zero.nc", engine="h5netcdf")
            increase = float(measured["loss_increase_mean"].sel(selection="top", ratio=1.0))
            assert f"| 1 | top | {k} | " in section and f" | {increase:+.3g} | " in section
    assert report.rstrip().endswith("an interval that just leaves 0 out is no proof.")


def test_no_text_is_on_both_sides_nor_twice_on_one(out, texts):
    manifest, file = read(out, "manifest.json"), read_texts(str(texts))
    ranked, measured = ([t.text for t in file.at(manifest[side]["places"])] for side in ("calibration", "evaluation"))
    assert len(set(ranked) | set(measured)) == len(ranked) + len(measured) == 18
    assert manifest["calibration"]["places"] != sorted(manifest["calibration"]["places"])  # they are drawn


def test_the_same_call_writes_the_same_but_for_times(out, asked, tmp_path):
    assert called(*asked, tmp_path / "out") == 0
    names = {file.name for file in out.iterdir()}
    assert names == {file.name for file in (tmp_path / "out").iterdir()}
    timed = {"analysis.log", "manifest.json", "experiment_summary.json", "config.json"}
    for name in names - timed:
        if name.endswith(".nc"):
            first, second = (xr.load_dataset(folder / name, engine="h5netcdf") for folder in (out, tmp_path / "out"))
            xr.testing.assert_equal(first, second)
        else:
            assert (out / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name
    for name in timed - {"analysis.log"}:
        first, second = (read(folder, name) for folder in (out, tmp_path / "out"))
        assert {k for k in first if first[k] != second[k]} <= {"started", "finished", "seconds", "command", "out"}


def test_fewer_texts_than_asked_for_are_told_and_counted(texts, tmp_path, capsys):
    quick = ["--perturbation-ratios", 1, "--n-seeds", 1, "--first-order"]
    assert called("critical-weights", "--model", "tiny", "--top", 3, "--data-file", texts, *quick, "--out", tmp_path) == 0
    said = capsys.readouterr()
    assert f"14 texts to measure with (100 were asked for: {texts} has no more)" in said.err
    assert "1 that are in the file before" in said.err
    assert "14 texts to rank with, 14 others to measure" in said.out and str(tmp_path) in said.out
    summary = read(tmp_path, "experiment_summary.json")
    assert summary["evaluation_texts"] == {"requested": 100, "used": 14} and summary["eval_texts_count"] == 14
    assert summary["left_out"] == {"shorter_than_two_tokens": 0, "equal_to_another": 1}
    assert (pd.read_csv(tmp_path / "perturbation_results.csv")["eval_texts_count"] == 14).all()
    assert "14 others to measure with (100 asked for)" in (tmp_path / "report.md").read_text()


def test_without_perturbation_nothing_is_changed(texts, tmp_path, monkeypatch):
    monkeypatch.setattr("tensorscope_nb.recipes.perturbation", None)
    asked = ["critical-weights", "--model", "tiny", "--top", 3, "--data-file", texts, "--no-perturbation", "--out", tmp_path]
    assert called(*asked) == 0
    assert not list(tmp_path.glob("perturbation*")) and "Changed: nothing" in (tmp_path / "report.md").read_text()


def test_a_magnitude_has_no_intervals_and_json_says_null_and_why(texts, tmp_path):
    assert called(
        "critical-weights", "--model", "tiny", "--top", 4, "--metric", "magnitude", "--per-layer", "--modules", "*.mlp.*",
        "--data-file", texts, "--eval-limit", 4, "--out", tmp_path, "--perturbation-ratios", 1, "--n-seeds", 1,
    ) == 0  # fmt: skip
    said = read(tmp_path, "sensitivity_statistics.json")["magnitude"]["top_4"]
    assert said["n_listed"] == 8 and said["modules"]["transformer.h.1.mlp.c_fc"]["enrichment_ci_low"] is None
    assert any("nothing was sampled" in note for note in said["notes"])
    table = pd.read_csv(tmp_path / "top_4_weights_magnitude.csv")
    assert table["rank"].tolist() == [1, 2, 3, 4] * 2
    assert all(".mlp." in layer for layer in table["layer"])
    for layer in (0, 1):
        weights = np.concatenate(
            [p.detach().numpy().ravel() for name, p in ts.load("tiny").model.named_parameters() if f"h.{layer}.mlp" in name]
        )
        np.testing.assert_array_equal(table["sensitivity"][4 * layer : 4 * layer + 4], np.sort(np.abs(weights))[::-1][:4])
    assert "nothing was sampled" in (tmp_path / "report.md").read_text()


def test_a_model_in_half_precision_is_ranked_and_changed_in_every_way(texts, tmp_path, capsys):
    asked = ["critical-weights", "--model", "tiny", "--dtype", "bfloat16", "--data-file", texts, "--out", tmp_path]
    ways = ["--top", 6, "--method", *options.METHODS, "--perturbation-ratios", 1, "--n-seeds", 2]
    assert "give --dtype float32" in refused(capsys, *asked, *ways, "--metric", "grad_x_weight", "hessian_diag")
    assert called(*asked, *ways) == 0
    half = ts.load("tiny", dtype=torch.bfloat16)
    calibration, _ = sides(tmp_path, texts, half)
    terms = (calibration.lengths - 1).double()
    gradients = {
        name: torch.einsum("n,n...->...", terms / terms.sum(), g.double())
        for name, g in half.per_sample_gradients(calibration).items()
    }
    parameters = dict(half.model.named_parameters())
    for row in pd.read_csv(tmp_path / "top_6_weights_grad_x_weight.csv").itertuples():
        place = tuple(map(int, row.indices.strip("(),").split(", ")))
        assert row.value == parameters[row.parameter][place].item()
        assert row.sensitivity == pytest.approx(abs(gradients[row.parameter][place].item() * row.value), rel=0.02)
    table = pd.read_csv(tmp_path / "perturbation_results.csv")
    assert set(table["method"]) == set(options.METHODS)
    assert table.groupby(["method", "selection"]).size().unstack()["top"].to_dict() == {
        "zero": 1, "sign_flip": 1, "scale": 1, "gaussian": 2, "bit_flip": 2
    }  # fmt: skip
    assert any("half" in note or "bfloat16" in note for note in read(tmp_path, "experiment_summary.json")["notes"])


def test_what_cannot_be_tested_is_said_and_the_rest_is_written(texts, tmp_path, capsys):
    scope = ts.load("tiny")
    with torch.no_grad():  # of this module ten weights are left
        weight, bias = scope.model.transformer.h[0].mlp.c_fc.parameters()
        weight[1:], weight[0, 10:], bias[:] = 0, 0, 0
    scope.model.save_pretrained(tmp_path / "model")
    scope.tokenizer.save_pretrained(tmp_path / "model")
    asked = ["critical-weights", "--model", tmp_path / "model", "--data-file", texts, "--top", 5, "--eval-limit", 4]
    more = [
        "--modules",
        "transformer.h.0.mlp.c_fc",
        "--perturbation-ratios",
        1,
        "--n-seeds",
        2,
        "--metric",
        "magnitude",
        "grad_squared",
    ]
    assert called(*asked, *more, "--method", "zero", "bit_flip", "--out", tmp_path / "out") == 0
    said = capsys.readouterr()
    why = "the value of all 5 chosen weights is 0 already, and method='zero' leaves it so"
    assert said.err.count(f"not measured: {why}") == 1 and f"  zero: not measured: {why}" in said.out
    magnitude, squared = read(tmp_path / "out", "experiment_summary.json")["results"]
    assert [(e["selection"], e["n_changed"]) for e in magnitude["perturbation"]["zero"]] == [
        ("top", 5),
        ("random", 5),
        ("bottom", 0),
    ]
    assert squared["perturbation"]["zero"] is None and squared["perturbation"]["bit_flip"]
    table = pd.read_csv(tmp_path / "out" / "perturbation_results.csv")
    assert set(table[["metric", "method"]].itertuples(index=False, name=None)) == {
        ("magnitude", "zero"), ("magnitude", "bit_flip"), ("grad_squared", "bit_flip")
    }  # fmt: skip
    assert f"grad_squared, top 5, zero: not measured: {why}" in (tmp_path / "out" / "report.md").read_text()
    path = tmp_path / "out" / "top_5_weights_grad_squared.csv"
    assert why in refused(capsys, "perturb", "--weights", path, "--ratios", 1)
    assert called("perturb", "--weights", path, "--method", "bit_flip", "--n-seeds", 1, "--ratios", 1) == 0


def test_controls_that_a_small_layer_has_no_weights_for_are_left_out():
    scope, said = ts.Scope(random_gpt2(n_layer=1)), []
    samples = scope.samples(torch.arange(4, 24).view(2, 10))
    size = sum(p.nelement() for name, p in scope.model.named_parameters() if ".h.0." in name)
    options = {"ratios": [1.0], "n_seeds": 2, "second_order": False, "seed": 0}
    for top, kept, n_reasons in ((200, ["top", "random", "bottom"], 0), (int(0.6 * size), ["top"], 2)):
        critical = critical_weights(scope, samples, top=top, per_layer=True)
        session = SimpleNamespace(say=said.append)
        result, reasons = controlled(session, scope, samples, critical, ["random", "bottom"], method="zero", **options)
        assert result["selection"].values.tolist() == kept and len(reasons) == n_reasons
    assert (
        said == reasons
        and said[0].startswith("without the random control: ")
        and said[1].startswith("without the bottom control: ")
    )


def test_a_folder_of_an_earlier_run_is_kept_unless_it_is_to_be_replaced(texts, tmp_path, capsys):
    asked = [
        "critical-weights",
        "--model",
        "tiny",
        "--data-file",
        texts,
        "--eval-limit",
        4,
        "--no-perturbation",
        "--out",
        tmp_path,
    ]
    assert called(*asked, "--top", 3) == 0
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    (tmp_path / "mine.txt").write_text("kept")
    assert refused(capsys, *asked, "--top", 2).endswith("give another --out, or --overwrite")
    assert before.items() <= {file.name: file.read_bytes() for file in tmp_path.iterdir()}.items()
    assert called(*asked, "--top", 2, "--overwrite") == 0
    assert {file.name for file in tmp_path.glob("*.csv")} == {
        "top_2_weights_grad_x_weight.csv",
        "bottom_2_weights_grad_x_weight.csv",
    }
    assert (tmp_path / "mine.txt").read_text() == "kept"


def test_a_study_is_not_written_over(texts, tmp_path, capsys):
    study = ts.Study(ts.load("tiny"), LINES[:2])
    study.run(ts.recipes.logit_lens)
    study.save(tmp_path)
    before = (tmp_path / "manifest.json").read_bytes()
    for more in ([], ["--overwrite"]):
        line = refused(capsys, "critical-weights", "--model", "tiny", "--data-file", texts, "--out", tmp_path, *more)
        assert "holds a manifest.json of something else, such as a study" in line
    assert (tmp_path / "manifest.json").read_bytes() == before


def refused(capsys, *arguments):
    """The one line that an error of use is."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        called(*arguments)
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert ended.value.code == 2 and len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("changes", "says"),
    {
        "no file": (["--data-file", "no/such.txt"], "there is no data file no/such.txt: check the path"),
        "no kind": (["--data-file", "texts.pdf"], "is none of .txt, .jsonl, .json, .csv"),
        "unknown metric": (["--metric", "grad_weight"], "invalid choice: 'grad_weight' (choose from"),
        "unknown method": (["--method", "halve"], "invalid choice: 'halve'"),
        "twice": (["--top", "3", "3"], "--top names 3 twice"),
        "no number": (["--top", "none"], "argument --top/--topk: 'none' is no whole number from 1 on"),
        "one text": (["--eval-limit", "1"], "'1' is no whole number from 2 on"),
        "a share": (["--perturbation-ratios", "1.5"], "'1.5' is no share of the list"),
        "too many": (["--top", "300000"], "top is 300000 and there are 211,200 weights: ask for fewer"),
        "no module": (["--modules", "no.such"], "no.such"),
        "no model": (["--model", "./nowhere"], "there is no folder './nowhere'"),
        "no tokenizer": (["--model", "digits"], "digits has no tokenizer to read texts with"),
        "no step": (["--checkpoint", "7"], "checkpoint is 7"),
        "a revision": (["--revision", "main"], "the packaged model takes checkpoint="),
        "no device": (["--device", "gpu"], "'gpu' is no device: choose auto, cpu, cuda or cuda:N"),
        "mps": (["--device", "mps"], "mps computes in single precision at most"),
        "a long text": (["--max-length", "500"], "--max-length is 500: give from 2 to 128"),
        "a file as folder": (["--out", __file__], "cannot be written to"),
    }.values(),
)  # fmt: skip
def test_what_cannot_be_done_is_one_line_and_exit_code_2(texts, tmp_path, capsys, changes, says):
    asked = ["--model", "tiny", "--data-file", texts, "--out", tmp_path / "out", "--no-perturbation", *changes]
    line = refused(capsys, "critical-weights", *asked)
    assert line.startswith("tensorscope critical-weights: error: ") and says in line
    assert not (tmp_path / "out" / "experiment_summary.json").exists()


def test_without_a_gpu_cuda_is_refused(texts, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    line = refused(capsys, "critical-weights", "--model", "tiny", "--data-file", texts, "--out", tmp_path, "--device", "cuda:1")
    assert "--device is cuda, and there is none" in line


def test_an_error_that_nobody_foresaw_keeps_its_traceback_and_is_in_the_log(texts, tmp_path, monkeypatch):
    monkeypatch.setattr(ts.Scope, "perplexity", lambda *_: np.zeros(2) @ np.zeros(3))  # a ValueError of another library
    with pytest.raises(ValueError, match="matmul"):
        called("critical-weights", "--model", "tiny", "--data-file", texts, "--out", tmp_path)
    assert "Traceback" in (tmp_path / "analysis.log").read_text()


def test_an_interrupt_leaves_a_log_and_no_summary(texts, tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ts.Scope, "perplexity", interrupt)
    assert called("critical-weights", "--model", "tiny", "--data-file", texts, "--out", tmp_path) == 130
    assert capsys.readouterr().err.endswith("tensorscope critical-weights: interrupted\n")
    assert [file.name for file in tmp_path.iterdir()] == ["analysis.log"]
    assert "ended by KeyboardInterrupt" in (tmp_path / "analysis.log").read_text()


def test_choices_are_those_of_the_recipes_and_help_tells_them(capsys):
    assert options.METRICS == sensitivity.METRICS and set(options.METHODS) == set(get_args(disturbance.Name))
    with pytest.raises(SystemExit) as ended:
        called("critical-weights", "--help")
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"one or several of {', '.join(options.METRICS)}" in said and "grad_weight" not in said
    assert f"one or several of {', '.join(options.METHODS)}" in said


CONTENTS = {
    "lines.txt": "One two.\n\n  \nThree four.\r\nFive \x0c six.",
    "lines.jsonl": '{"text": "One two.", "more": 1}\n\n"Three four."\n{"text": "Five \\u000c six."}\n',
    "list.json": '["One two.", {"text": "Three four."}, "Five \\f six."]',
    "table.csv": 'id,text\n1,One two.\n2,"Three four."\n3,Five \x0c six.\n',
}


@pytest.mark.parametrize("name", CONTENTS)
def test_every_kind_of_file_gives_the_same_texts(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + CONTENTS[name].encode())
    file = read_texts(str(tmp_path / name))
    assert [text.text for text in file.texts] == ["One two.", "Three four.", "Five \x0c six."]
    places = {"lines.txt": [1, 4, 5], "lines.jsonl": [1, 3, 4], "list.json": [0, 1, 2], "table.csv": [2, 3, 4]}[name]
    assert [text.place for text in file.texts] == [f"{'entry' if name == 'list.json' else 'line'} {n}" for n in places]
    assert file.at([file.texts[2].place]) == file.texts[2:]


def test_paragraphs_and_rows_of_several_lines_are_named_by_their_first(tmp_path):
    (tmp_path / "a.txt").write_text("\none\ntwo\n \n\nthree\n")
    assert [(t.place, t.text) for t in read_texts(str(tmp_path / "a.txt"), paragraphs=True).texts] == [
        ("line 2", "one\ntwo"), ("line 6", "three")
    ]  # fmt: skip
    with (tmp_path / "a.csv").open("w", newline="") as opened:
        csv.writer(opened).writerows([["words", "n"], ["one\ntwo", 1], ["x" * 200_000, 2], ["three, four", 3]])
    found = read_texts(str(tmp_path / "a.csv"), field="words").texts
    assert [(t.place, len(t.text)) for t in found] == [("line 2", 7), ("line 4", 200_000), ("line 5", 11)]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", b" \n\n", "holds no texts"),
        ("a.txt", b"good\n\xff\xfe bad", "line 2 of {} is no UTF-8"),
        (
            "a.jsonl",
            b'{"text": "a"}\n{"txt": "b", "n": 1}',
            "line 2 of {} has no field 'text' (it has txt, n): name it with --text-field",
        ),
        ("a.jsonl", b'{"text": "a"}\n{"text": ', "line 2 of {} is not JSON"),
        ("a.jsonl", b'{"text": 3}', "line 1 of {} is a int, not a text"),
        ("a.json", b'{"text": "a"}', "{} holds a dict: give a list of texts"),
        ("a.json", b"[", "{} is not JSON"),
        ("a.csv", b"txt,n\na,1\n", "{} has no column 'text' (it has txt, n): name it with --text-field"),
        ("a.csv", b"text,n\na,1\na, b,1\n", "line 3 of {} has 3 cells under 2 columns: quote texts with commas"),
        ("a.csv", b"", "{} has no column 'text' (it has none)"),
    ],
)
def test_what_is_wrong_with_a_file_names_the_line(tmp_path, capsys, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    line = refused(capsys, "critical-weights", "--model", "tiny", "--data-file", path)
    assert says.format(path) in line and not (tmp_path / "outputs").exists()


def letters(context):
    """What reads a text letter by letter, without a start token."""
    tokenizer = lambda text, verbose: {"input_ids": [ord(letter) for letter in text]}
    return SimpleNamespace(name="letters", tokenizer=tokenizer, anatomy=SimpleNamespace(context=context))


def test_short_and_long_texts_are_named_with_what_to_do():
    texts = [Text(f"line {i}", text) for i, text in enumerate(["One.", "  ", "a", "", "Two.", "Four five."], 1)]
    with pytest.raises(UseError, match=r"line 3 of a\.txt \('a'\) has 1 token, and two are needed .* give --skip-short"):
        list(Reading(letters(10), "a.txt").distinct(texts))
    with pytest.raises(UseError, match=r"line 4 of a\.txt is empty, and two"):
        list(Reading(letters(10), "a.txt").distinct(texts[3:]))
    reading = Reading(letters(10), "a.txt", skip_short=True)
    assert [text.place for text in reading.distinct(texts)] == ["line 1", "line 2", "line 5", "line 6"] and reading.n_short == 2
    with pytest.raises(UseError, match=r"line 6 of a\.txt has 10 tokens, and the context of letters is 9: .* --max-length 9, or"):
        list(Reading(letters(9), "a.txt").distinct(texts[4:]))
    assert [len(Reading(letters(9), "a.txt", 3).tokens(text)) for text in texts[4:]] == [3, 3]


def test_a_text_is_cut_where_it_is_asked_for_and_nowhere_else(tiny):
    text = Text("line 1", "word " * 100)
    with pytest.raises(UseError, match="the context of tiny is 128"):
        Reading(tiny, "a.txt").tokens(text)
    assert Reading(tiny, "a.txt", 9).samples([text], "evaluation").lengths.tolist() == [9]


def test_texts_that_are_equal_where_they_are_cut_are_one():
    texts = [Text("line 1", "To be, or not"), Text("line 2", "To be, and"), Text("line 3", "To be, or not"), Text("line 4", "Or")]
    whole, cut = Reading(letters(99), "f"), Reading(letters(99), "f", 5)
    assert [text.place for text in whole.distinct(texts)] == ["line 1", "line 2", "line 4"] and whole.n_equal == 1
    assert [text.place for text in cut.distinct(texts)] == ["line 1", "line 4"] and cut.n_equal == 2
    assert [text.place for text in cut.distinct(texts[1:], without=texts[:1])] == ["line 4"]


@pytest.mark.parametrize("n", [4, 5, 11, 50])
@pytest.mark.parametrize("limits", [(2, 2), (3, 9), (30, 2), (100, 100)])
def test_a_split_gives_each_side_its_share_and_no_text_to_both(n, limits):
    texts = [Text(f"line {i}", f"{i:02}") for i in range(n)]
    first, second = split(Reading(letters(9), "f"), texts, limits, 0)
    assert not set(first) & set(second) and 2 <= len(first) <= limits[0] and 2 <= len(second) <= limits[1]
    assert len(first) + len(second) == min(n, sum(limits))
    assert (first, second) == split(Reading(letters(9), "f"), texts, limits, 0)
    others = {tuple(split(Reading(letters(9), "f"), texts, limits, seed)[0]) for seed in range(20)}
    assert len(others) > 5


def test_three_texts_are_too_few_for_two_sides():
    texts = [Text(f"line {i}", f"{i:02}") for i in (1, 2, 3, 3, 2)]
    with pytest.raises(UseError, match="f holds 3 texts that differ: give at least 4"):
        split(Reading(letters(9), "f"), texts, (2, 2), 0)
