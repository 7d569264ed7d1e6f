import pytest

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def one_thread_and_one_seed():
    """Two threads beside another process are many times slower than one."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def captured(tmp_path):
    """Capture one step of ``loss(model)`` and return the open trace."""
    from sfpsim.trace.capture import Capture
    from sfpsim.trace.reader import open_trace

    def run(model, loss, name="t", **options):
        with Capture(model, tmp_path / name, every=1, **options) as capture, capture.step():
            loss().backward()
        trace = open_trace(tmp_path / name)
        trace.verify()
        assert trace.incomplete_steps == []
        return trace

    return run
