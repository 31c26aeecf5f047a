import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from study.killing import (
    become_nobody,
    failing_save,
    limit_files,
    marks,
    no_sync,
    nothing,
    processes,
    results,
    save_again_and_again,
    save_that_stops,
)
from tiny_models import random_gpt2

import tensorscope_nb as ts
from tensorscope_nb.study.store import load_results, save_results

IDS = torch.randint(50, (3, 9), generator=torch.Generator().manual_seed(1))
RESULT = r"\w+-[0-9a-f]{8}\.tensorscope\.nc"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", no_sync)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def is_just_a_study(folder: Path) -> bool:
    """Two results and their manifest, and nothing besides."""
    kept = files(folder)
    return len(kept) == 3 and kept[1] == "manifest.json" and all(re.fullmatch(RESULT, kept[i]) for i in (0, 2))


def test_saved_results_open_as_they_were(tmp_path):
    scope = ts.load("tiny")
    samples = ts.Samples.tokens(torch.tensor([[5, 0, 7, 9]]), pieces=[("a\0b", "/", "<b>", "é\n")], texts=["NUL \0 and / and ☃"])
    study = ts.Study(scope, samples).run(ts.recipes.attention_patterns, ts.recipes.induction_heads.using(n_sequences=2))
    folder = study.save(tmp_path / "study")
    again = ts.Study.open(folder)
    assert list(again) == list(study)
    for name in study:
        xr.testing.assert_identical(again[name], study[name])
        assert again[name]["layer"].dtype == study[name]["layer"].dtype
    with pytest.raises(ValueError, match="opened from a folder and holds results only"):
        again.run(ts.recipes.ablation)


def test_a_save_that_is_killed_at_any_moment_leaves_a_whole_study(tmp_path):
    for moment in range(1, 100):
        folder = tmp_path / str(moment)
        save_results(results(1), folder)
        (folder / "notes-20240131.nc").write_text("of the user")
        with save_that_stops(folder, 2, moment) as (process, _, call):
            if call == "saved":
                break
            process.kill()
            process.join()
        replaced = call.startswith("unlink") and not call.endswith(".tmp")
        assert marks(folder) in ([{2}] if replaced else [{1}, {2}]), call
        if moment % 5 == 0:  # killed twice over
            with save_that_stops(folder, 3, moment) as (process, _, call):
                process.kill()
                process.join()
            assert len(marks(folder)) == 1, call
        save_results(results(4), folder)
        assert marks(folder) == {4}
        (folder / "notes-20240131.nc").unlink()
        assert is_just_a_study(folder), (call, files(folder))
    assert moment > 15  # or nothing was tried


def test_a_power_cut_keeps_the_order(tmp_path, monkeypatch):
    """Every file is on the disk before its name, every name before the next step, and old files go last."""
    folder = save_results(results(1), tmp_path / "study")
    done, replace, unlink = [], os.replace, Path.unlink

    def synced(handle):
        done.append("sync folder" if Path(os.readlink(f"/proc/self/fd/{handle}")).is_dir() else "sync file")

    def replaced(source, target):
        done.append(f"name {Path(target).suffix}")
        replace(source, target)

    def unlinked(path, missing_ok=False):
        if path.suffix == ".nc":
            done.append("remove")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    monkeypatch.setattr(Path, "unlink", unlinked)
    save_results(results(2), folder)
    one = ["sync file", "name .nc", "sync folder"]
    assert done == [*one, *one, "sync file", "name .json", "sync folder", "remove", "remove"]


def test_two_saves_at_a_time_never_take_each_others_files(tmp_path):
    for moment in range(1, 100, 2):
        folder = save_results(results(1), tmp_path / str(moment))
        with save_that_stops(folder, 2, moment) as (process, talk, call):
            if call == "saved":
                break
            save_results(results(3), folder)
            assert marks(folder) == {3}, call
            talk.send("go on")
            assert talk.recv() == "saved"
            process.join()
        assert marks(folder) in ({2}, {3}), call
        assert is_just_a_study(folder), (call, files(folder))
    assert moment > 15


def test_a_folder_that_several_save_into_can_be_read_at_every_moment(tmp_path):
    folder = save_results(results(1), tmp_path / "study")
    savers = [processes.Process(target=save_again_and_again, args=(folder, mark, 12)) for mark in (2, 3)]
    for saver in savers:
        saver.start()
    seen = set()
    while any(saver.is_alive() for saver in savers):
        found = marks(folder)
        assert len(found) == 1
        seen |= found
    assert [saver.exitcode for saver in savers] == [0, 0] and len(seen) > 1
    save_results(results(4), folder)
    assert is_just_a_study(folder)


@pytest.mark.parametrize("most", [100, 2_000, 200_000])
def test_a_full_disk_is_one_clear_line(tmp_path, most):
    """The limit on the size of files fails as a disk without space does; it must not end the process, as HDF5 would."""
    folder = save_results(results(1), tmp_path / "study")
    before = files(folder)
    kind, text, ended = failing_save(folder, limit_files, most)
    assert (kind, ended) == ("OSError", 0)
    assert text == f"the study could not be written to {str(folder)!r}: File too large; earlier files are as they were"
    assert marks(folder) == {1} and files(folder) == before


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.getuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", folder], check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_without_space_keeps_what_was_saved(small_disk):
    folder = save_results(results(1), small_disk / "study")
    before = files(folder)
    kind, text, ended = failing_save(folder, nothing)
    assert (kind, ended) == ("OSError", 0) and "No space left on device; earlier files are as they were" in text
    assert marks(folder) == {1} and files(folder) == before


def test_a_folder_that_may_not_be_written_is_one_clear_line():
    with tempfile.TemporaryDirectory() as outer:
        os.chmod(outer, 0o755)
        folder = save_results(results(1), Path(outer) / "study")
        before = files(folder)
        os.chmod(folder, 0o555)
        kind, text, _ = failing_save(folder, become_nobody)
        os.chmod(folder, 0o755)
        assert kind == "PermissionError"
        assert text == f"the study could not be written to {str(folder)!r}: Permission denied; earlier files are as they were"
        assert marks(folder) == {1} and files(folder) == before


def test_a_file_where_the_folder_should_be_is_left_alone(tmp_path):
    (tmp_path / "study").write_text("of the user")
    with pytest.raises(OSError, match=r"could not be written to '.*study': File exists"):
        save_results(results(1), tmp_path / "study")
    assert (tmp_path / "study").read_text() == "of the user"


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    folder = save_results(results(1), tmp_path / "study")
    before, written, original = files(folder), [], Path.write_bytes

    def interrupted(path, content):
        written.append(path)
        if len(written) == 2:
            raise KeyboardInterrupt
        return original(path, content)

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_results(results(2), folder)
    assert marks(folder) == {1} and files(folder) == before


def test_other_files_of_the_user_stay(tmp_path):
    folder = save_results(results(1), tmp_path / "study")
    names = [
        "era5-20240131.nc",
        "first-00000000.nc",
        ".first.tmp",
        ".manifest.json.swp",
        "first-0000000g.tensorscope.nc",
        "a.tmp",
    ]
    for name in names:
        (folder / name).write_text("of the user")
    save_results(results(2), folder)
    assert set(names) <= set(files(folder)) and len(files(folder)) == len(names) + 3


def test_new_files_may_be_read_by_those_who_may_read_the_folder(tmp_path):
    old = os.umask(0o027)
    try:
        folder = save_results(results(1), tmp_path / "study")
    finally:
        os.umask(old)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}


def test_the_manifest_says_what_each_result_is(tmp_path):
    scopes = {"a": ts.Scope(random_gpt2(0)), "b": ts.Scope(random_gpt2(1))}
    study = ts.Study(scopes["a"], IDS).run(ts.recipes.ablation.using(method="zero", seed=3))
    manifest = json.loads((study.save(tmp_path / "one") / "manifest.json").read_text())
    assert manifest["format"] == 1 and list(manifest["results"]) == ["ablation"]
    entry = manifest["results"]["ablation"]
    assert re.fullmatch(RESULT, entry["file"]) and re.fullmatch("[0-9a-f]{64}", entry["sha256"])
    said = json.loads(study["ablation"].attrs["tensorscope"])
    for key in ("recipe", "options", "model", "weights", "dtype", "seed", "n_used", "n_available", "seconds"):
        assert entry[key] == said[key] and entry[key] is not None, key
    assert entry["options"]["method"] == "zero" and entry["seed"] == 3
    assert set(entry["versions"]) == {"tensorscope_nb", "torch", "transformers", "xarray", "numpy", "python"}
    joined = ts.Study(scopes, IDS).run(ts.recipes.ablation).save(tmp_path / "both")
    members = json.loads((joined / "manifest.json").read_text())["results"]["ablation"]["members"]
    assert list(members) == ["a", "b"] and members["a"]["weights"] == entry["weights"] != members["b"]["weights"]


def test_the_manifest_says_what_is_partial_and_is_strict_json(tmp_path):
    result = results(1)["first"]
    result.attrs["tensorscope"] = json.dumps({"partial": True, "n_used": 3, "n_available": 9, "options": {"span": np.inf}})
    text = (save_results({"r": result}, tmp_path) / "manifest.json").read_text()
    entry = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))["results"]["r"]
    assert (entry["partial"], entry["n_used"], entry["n_available"], entry["recipe"]) == (True, 3, 9, None)


def damaged(folder: Path, name: str) -> str:
    (path,) = folder.glob(f"{name}-*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path.name


def test_a_damaged_or_missing_file_is_named_and_the_others_open(tmp_path):
    folder = save_results(results(1), tmp_path / "study")
    name = damaged(folder, "first")
    with pytest.raises(OSError) as caught:
        ts.Study.open(folder)
    assert str(caught.value) == (
        f"the result 'first' in {str(folder)!r} is damaged: {name} is not as it was saved (its checksum differs); "
        f"open the others with Study.open({str(folder)!r}, without=['first'])"
    )
    assert list(load_results(folder, without=["first"])) == ["second"]
    with pytest.raises(LookupError, match=r"without names 'third': the study in .* holds first, second"):
        load_results(folder, without=["third"])
    (missing,) = folder.glob("second-*")
    missing.unlink()
    with pytest.raises(OSError, match=f"'second' in .* is damaged: {missing.name} is missing$"):
        load_results(folder, without=["first"])
    with pytest.raises(OSError, match=r"'first' .* \(its checksum differs\); the result 'second' .* is missing$"):
        load_results(folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{'format': 1}", r"is damaged, or of another program: it is no JSON \(.* line 1"),
        ("", "it is no JSON"),
        (b"\xff\xfe", "it is no JSON"),
        ('{"format": 2, "results": {}}', r"has format 2, and tensorscope_nb .* reads up to 1: update it"),
        ('{"name": "an app", "icons": []}', "it names no results of a study"),
        ("[]", "it names no results of a study"),
        ('{"format": 1, "results": {"a": {"file": "../../secret", "sha256": ""}}}', "it names no results of a study"),
    ],
)  # fmt: skip
def test_a_manifest_that_is_none_is_one_clear_line_and_stays(tmp_path, text, says):
    path = tmp_path / "manifest.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = path.read_bytes()
    with pytest.raises(ValueError, match=says):
        ts.Study.open(tmp_path)
    with pytest.raises(ValueError, match=f"{says}.*; nothing was written: save to another folder"):
        save_results(results(1), tmp_path)
    assert path.read_bytes() == before and files(tmp_path) == ["manifest.json"]


def test_no_study_and_no_results_are_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no study: there is no manifest\.json in it"):
        ts.Study.open(tmp_path)
    with pytest.raises(ValueError, match="run a recipe before you save"):
        ts.Study(ts.Scope(random_gpt2())).save(tmp_path / "none")
    assert files(tmp_path) == []


def test_without_locks_saves_still_replace_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr("tensorscope_nb.study.saving.fcntl", None)
    folder = save_results(results(1), tmp_path / "study")
    save_results(results(2), folder)
    assert marks(folder) == {2} and is_just_a_study(folder)
