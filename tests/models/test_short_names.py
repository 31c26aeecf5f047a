"""Short names of models on the hub: what they stand for, what comes before them, and what is said where nothing is found."""

import re
import shutil
import socket

import pytest
from tiny_models import random_gpt2

import tensorscope_nb as ts
from tensorscope_nb.models import hub, short_names
from tensorscope_nb.models.short_names import hub_id, no_owner


@pytest.mark.parametrize(
    ("short", "full"),
    {
        "pythia-2.8b": "EleutherAI/pythia-2.8b",
        "pythia-410m": "EleutherAI/pythia-410m",
        "pythia-12b-deduped": "EleutherAI/pythia-12b-deduped",
        "gpt-neo-125m": "EleutherAI/gpt-neo-125m",
        "gpt-neo-1.3b": "EleutherAI/gpt-neo-1.3B",
        "gpt-j-6b": "EleutherAI/gpt-j-6b",
        "gpt-neox-20b": "EleutherAI/gpt-neox-20b",
        "opt-125m": "facebook/opt-125m",
        "SmolLM2-135M": "HuggingFaceTB/SmolLM2-135M",
        "smollm-360m-instruct": "HuggingFaceTB/SmolLM-360M-Instruct",
        "Qwen2.5-0.5B": "Qwen/Qwen2.5-0.5B",
        "TinyLlama-1.1B-Chat-v1.0": "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        "bloom": "bigscience/bloom",
        "bloom-560m": "bigscience/bloom-560m",
        "phi-2": "microsoft/phi-2",
    }.items(),
)
def test_a_short_name_stands_for_the_id_as_its_owner_spells_it(short, full):
    assert hub_id(short) == full


@pytest.mark.parametrize(
    "name",
    ["gpt2", "distilgpt2", "bert-base-uncased", "EleutherAI/pythia-2.8b", "mine/pythia-2.8b", "pythia-3b", "pythia-2.8b-v0"],
)
def test_any_other_name_stays_as_it_is(name):
    assert hub_id(name) == name


def test_every_name_has_one_owner_and_is_a_name_that_the_hub_allows():
    spelled = [
        f"{owner}/{name}"
        for owner, patterns in short_names.FAMILIES.items()
        for pattern in patterns
        for name in short_names._spelled(pattern)
    ]
    assert len({name.rpartition("/")[2].lower() for name in spelled}) == len(spelled) > 100
    for name in spelled:
        hub.check_id(name)
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", name)
    assert not {"tiny", "digits", "smollm2", "minilm", "gpt2", "distilgpt2"} & short_names._known().keys()


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """The ids that the hub is asked for; it answers nothing, and nothing was downloaded before."""
    names = []

    def reach(name, options, asked):
        names.append(name)
        return unreached(name, options, asked)

    def refuse(*_, **__):
        raise ConnectionError("no network here")

    unreached = hub.reach
    monkeypatch.setattr("tensorscope_nb.models.pretrained.reach", reach)
    monkeypatch.setattr("huggingface_hub.utils.get_session", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.chdir(tmp_path)
    return names


def test_without_a_network_one_line_says_what_was_looked_for_where(asked, tmp_path):
    said = {}
    for name in ("pythia-2.8b", "pythia-3b", "qqqq", "mine/small"):
        with pytest.raises(OSError) as caught:
            ts.load(name, cache_dir=tmp_path)
        said[name] = str(caught.value)
        assert "\n" not in said[name]
    assert asked == ["EleutherAI/pythia-2.8b", "pythia-3b", "qqqq", "mine/small"]
    assert said["pythia-2.8b"].startswith(
        "there is no folder 'pythia-2.8b', and the model hub, where it is 'EleutherAI/pythia-2.8b', does not answer (no network"
    )
    assert said["pythia-3b"].startswith(
        "there is no folder 'pythia-3b' (nor is that short for a known one; near are pythia-1b"
    ) and "and the model hub does not answer (no network here)" in said["pythia-3b"]  # fmt: skip
    assert said["qqqq"].startswith("there is no folder 'qqqq' (nor is that short for a known one), and the model hub does not")
    assert said["mine/small"].startswith("there is no folder 'mine/small', and the model hub does not answer (")


def test_a_folder_of_that_name_comes_before_the_hub(asked, tmp_path):
    random_gpt2().save_pretrained("pythia-2.8b")
    assert ts.load("pythia-2.8b").name == "pythia-2.8b" and not asked
    shutil.move("pythia-2.8b", "EleutherAI")
    with pytest.raises(OSError, match=r"no folder 'pythia-2\.8b'"):
        ts.load("pythia-2.8b", cache_dir=tmp_path)
    shutil.move("EleutherAI", tmp_path / "moved")
    shutil.copytree(tmp_path / "moved", "EleutherAI/pythia-2.8b")
    asked.clear()
    assert ts.load("pythia-2.8b").name == ts.load("EleutherAI/pythia-2.8b").name == "pythia-2.8b" and not asked


def test_near_names_are_told_of_names_without_an_owner_alone():
    assert "smollm2-135m" in no_owner("smollm-2-135m").lower()
    assert no_owner("mine/pythia-3b") == ""
