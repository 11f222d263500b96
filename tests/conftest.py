"""What all tests share: one thread per process, a private cache, the data folder."""

import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# A busy machine is no failure: how long an example takes is not what these tests are about.
settings.register_profile("netsmith", deadline=None)
settings.load_profile("netsmith")

# Tests run beside each other on few cores; also inherited by the commands that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What is started in the background ignores Ctrl-C, and its children inherit that; tests press it and expect it to work.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """NETSMITH_CACHE points into the session's temporary folder."""
    folder = tmp_path_factory.mktemp("netsmith-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETSMITH_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """Whoever imported torch computes with one thread; nobody imports it here."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real data sets and weights, NETSMITH_TEST_DATA or ../shared/data beside the repository."""
    folder = Path(os.environ.get("NETSMITH_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}; set NETSMITH_TEST_DATA")
    return folder
