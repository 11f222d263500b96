"""OpenVINO behind the protocol of ONNX Runtime: the same answers from the same file, nothing kept, nothing sent."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import mixed_networks
import numpy as np
import pytest
from artifact_models import colour_model, colour_picture, write_colour_run, write_colours
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from netsmith.arch import graph as g
from netsmith.arch.layout import Layout, layout_graph
from netsmith.arch.names import find_layout
from netsmith.artifact import runtimes
from netsmith.artifact.bundle import Preferred, artifact_hash, load_bundle, write_preferred
from netsmith.artifact.latency import Measurement
from netsmith.artifact.predictor import Predictor
from netsmith.artifact.runtimes import REFERENCE, RUNTIMES, open_model, open_session, precision_in
from netsmith.artifact.verify import PROBABILITY_TOLERANCE, verify
from netsmith.cli.main import run
from netsmith.errors import InputError
from netsmith.export.probe import probe_onnx
from netsmith.run.preprocess import Preprocess

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="openvino is not installed (the extra `openvino`)"
)
needs_bfloat16 = pytest.mark.skipif(
    RUNTIMES["openvino-bf16"].obstacle() is not None, reason=f"openvino-bf16 {RUNTIMES['openvino-bf16'].obstacle()}"
)
# Between them every operation of a graph, with padding of both kinds, groups, and all activations.
LAYOUTS: list[Layout] = [
    *map(mixed_networks.layout, mixed_networks.NAMES),
    find_layout("resnet20_cifar@width=0.5", num_classes=7, img_size=16),
    find_layout("efficientnet_b0@width=0.25,depth=0.4", num_classes=7, img_size=32),
    find_layout("mobilenet_v3_small@width=0.25", num_classes=7, img_size=32),
    find_layout("inception_resnet_v2@width=0.1,depth=0.1", num_classes=7, img_size=75),
]


def noise(size: int, *, count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def model_of(layout: Layout) -> bytes:
    return probe_onnx(layout, preprocess=Preprocess(size=layout.resolution[0]))


def test_the_networks_hold_every_operation():
    assert {type(op) for layout in LAYOUTS for op in layout_graph(layout).ops} == set(get_args(g.Op))


@needs_openvino
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_float32_has_the_answers_of_onnx_runtime(layout):
    model, pixels = model_of(layout), noise(layout.resolution[0])
    expected = open_model(model).run(pixels)
    session = open_model(model, runtime="openvino")
    found = session.run(pixels)
    assert (session.runtime, session.threads, session.size) == ("openvino", 1, layout.resolution[0])
    assert found.logits.dtype == found.probabilities.dtype == np.float32
    assert np.abs(found.logits - expected.logits).max() <= 1e-5 * np.abs(expected.logits).max()
    assert np.abs(found.probabilities - expected.probabilities).max() <= 1e-5
    for count in (1, 2):  # the batch is open
        assert session.run(pixels[:count]).logits == pytest.approx(found.logits[:count], abs=1e-4)


@needs_openvino
@needs_bfloat16
@pytest.mark.parametrize("layout", LAYOUTS[3:5], ids=lambda layout: layout.name)
def test_bfloat16_rounds_and_stays_within_its_tolerance(layout):
    model, pixels = model_of(layout), noise(layout.resolution[0], count=8)
    expected = open_model(model).run(pixels)
    found = open_model(model, runtime="openvino-bf16").run(pixels)
    gap = np.abs(found.logits - expected.logits).max() / np.abs(expected.logits).max()
    assert 1e-4 < gap < 5e-2  # not float32 under another name
    assert np.abs(found.probabilities - expected.probabilities).max() <= PROBABILITY_TOLERANCE["bfloat16"]


class _Noise(CalibrationDataReader):
    def __init__(self) -> None:
        self.left = iter([{"image": noise(16, count=16)}])

    def get_next(self):
        return next(self.left, None)


@needs_openvino
def test_an_int8_graph_is_read_as_it_is(tmp_path):
    layout = LAYOUTS[3]
    (tmp_path / "float.onnx").write_bytes(model_of(layout))
    quantize_static(
        tmp_path / "float.onnx", tmp_path / "int8.onnx", _Noise(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    pixels = noise(16, count=8)
    exact = open_model(tmp_path / "float.onnx").run(pixels).probabilities
    int8 = tmp_path / "int8.onnx"
    expected, found = (open_model(int8, runtime=name).run(pixels).probabilities for name in (REFERENCE, "openvino"))
    assert np.abs(expected - exact).max() > 1e-4
    assert np.abs(found - expected).max() <= PROBABILITY_TOLERANCE["int8"]


@needs_openvino
def test_what_openvino_cannot_serve_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "model.onnx").write_bytes(colour_model()[:200])
    with pytest.raises(InputError, match=r"model\.onnx is refused by OpenVINO \(Unable to read the model") as caught:
        open_model(tmp_path / "model.onnx", runtime="openvino")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="refused by OpenVINO"):
        open_model(b"hello", runtime="openvino")
    with pytest.raises(InputError, match="has image .*a classifier takes image"):
        open_model(colour_model().replace(b"logits", b"others"), runtime="openvino")


@needs_openvino
def test_more_threads_than_cores_are_said(tmp_path):
    said: list[str] = []
    session = open_session(write_colours(tmp_path / "model"), runtime="openvino", threads=999, warn=said.append)
    assert session.threads < 999
    assert said == [f"openvino computes with {session.threads} of 999 threads, all that this machine gives it"]


@needs_openvino
def test_an_artifact_that_prefers_openvino_predicts_and_verifies(tmp_path):
    write_colours(tmp_path / "plain")
    write_colours(tmp_path / "model", preferred=Preferred(runtime="openvino"))
    pictures = [colour_picture(colour) for colour in ("red", "blue")]
    predictor = Predictor(tmp_path / "model")
    assert predictor.session.runtime == "openvino"
    expected = Predictor(tmp_path / "plain").predict_proba(pictures)
    assert predictor.predict_proba(pictures) == pytest.approx(expected, abs=1e-5)
    read_only = noise(32)
    read_only.flags.writeable = False  # as pictures come from a cache
    assert predictor.session.run(read_only).logits.shape == (3, 3)
    assert verify(tmp_path / "model").ok


def test_weights_in_sixteen_bits_are_judged_by_what_computes(tmp_path):
    """They are widened when the file is opened: only what rounds at every call may be further away."""
    plain = write_colours(tmp_path / "model")
    for own in ("float32", "float16", "bfloat16", "int8"):
        bundle = replace(plain, config=plain.config.model_copy(update={"precision": own}))
        found = [precision_in(bundle, name) for name in RUNTIMES]
        assert found == (["int8"] * 3 if own == "int8" else ["float32", "float32", "bfloat16"])


@needs_openvino
@needs_bfloat16
def test_verify_allows_what_the_runtime_rounds_and_not_more(tmp_path):
    bundle = write_colours(tmp_path / "model", preferred=Preferred(runtime="openvino-bf16"))
    [check] = [check for check in verify(bundle.folder).checks if check.name == "golden probabilities"]
    assert check.ok
    assert check.expected == "within 0.02"


@needs_openvino
def test_nothing_is_sent_counted_or_kept(tmp_path):
    code = (
        "import sys; from pathlib import Path; from netsmith.artifact.runtimes import open_model\n"
        "session = open_model(Path('model.onnx'), runtime='openvino')\n"
        "import numpy as np; session.run(np.zeros((1, 32, 32, 3), np.uint8))\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]\n"
        "assert not {'torch', 'onnx'} & set(sys.modules)"
    )
    (tmp_path / "model.onnx").write_bytes(colour_model())
    environment = {"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == (b"", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_runtime_that_is_not_there_is_named_with_the_way_to_get_it(tmp_path, monkeypatch):
    bundle = write_colours(tmp_path / "model", preferred=Preferred(runtime="openvino"))
    found = importlib.util.find_spec
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None if name == "openvino" else found(name))
    said: list[str] = []
    assert open_session(bundle, warn=said.append).runtime == REFERENCE
    assert said == [
        f"{bundle.folder} prefers the runtime 'openvino', which is not installed (pip install 'netsmith[openvino]'); "
        "onnxruntime runs it"
    ]
    with pytest.raises(InputError, match=r"'openvino' is not installed \(pip install 'netsmith\[openvino\]'\)"):
        open_session(bundle, runtime="openvino")


@pytest.fixture
def unloadable(tmp_path, monkeypatch):
    """OpenVINO is installed, and a library of it is missing."""
    (tmp_path / "site" / "openvino").mkdir(parents=True)
    (tmp_path / "site" / "openvino" / "__init__.py").write_text("raise ImportError('libopenvino.so: no such file')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)  # of the process that measures
    monkeypatch.delitem(sys.modules, "openvino", raising=False)


@pytest.mark.usefixtures("unloadable")
def test_one_that_is_installed_and_cannot_be_loaded_gives_way_and_says_so(tmp_path, capsys):
    bundle = write_colours(tmp_path / "model", preferred=Preferred(runtime="openvino"))
    said: list[str] = []
    assert open_session(bundle, warn=said.append).runtime == REFERENCE
    assert said == [
        f"{bundle.folder} prefers the runtime 'openvino', and openvino is installed and cannot be loaded "
        "(libopenvino.so: no such file); onnxruntime runs it"
    ]
    with pytest.raises(InputError, match="install it anew, or remove it and onnxruntime takes its place"):
        open_session(bundle, runtime="openvino")
    found = verify(bundle.folder)
    assert found.ok
    assert [check.note for check in found.checks if check.name == "runtime"] == said
    (tmp_path / "red.png").write_bytes(colour_picture("red"))
    assert run(["predict", str(bundle.folder), str(tmp_path / "red.png")]) == 0
    shown = capsys.readouterr()
    assert shown.err == f"warning: {said[0]}\n"
    assert run(["predict", str(bundle.folder), str(tmp_path / "red.png"), "--runtime", "openvino"]) == 2


@pytest.mark.usefixtures("unloadable")
def test_a_run_whose_runtime_cannot_be_loaded_is_verified_by_what_stands_in(tmp_path):
    """Its latency is shown, as on another machine."""
    measured = Measurement(
        p50_ms=10.0, p90_ms=11.0, low=10.8, high=11.2, noise=0.02, peak_memory_bytes=10**8, threads=1,
        runtime="openvino", warmup=3, runs=100, resize_ms=None,
    )  # fmt: skip
    made = write_colour_run(tmp_path, latency=measured, budget="latency=1s")
    bundle = write_preferred(load_bundle(made.model), Preferred(runtime="openvino"))
    document = json.loads(made.results.read_text())
    document["final"]["size_bytes"] = bundle.size_bytes
    made.results.write_text(json.dumps(document | {"artifact": artifact_hash(made.model)}))
    found = verify(made.path, seconds=0.1)
    assert [check.name for check in found.failed] == []
    latency = next(check for check in found.checks if check.name == "latency p90 ms")
    assert latency.ok is None
    assert latency.note.endswith("in onnxruntime: shown, not judged")


def test_one_that_refuses_the_graph_gives_way_where_another_takes_it(tmp_path, monkeypatch):
    bundle = write_colours(tmp_path / "model", preferred=Preferred(runtime="openvino"))

    def refuses(model: Path | bytes, threads: int) -> Any:
        raise InputError(f"{model} is refused by OpenVINO (no such operation); export the artifact again")

    monkeypatch.setitem(RUNTIMES, "openvino", replace(RUNTIMES[REFERENCE], open=refuses))
    said: list[str] = []
    assert open_session(bundle, warn=said.append).runtime == REFERENCE
    assert said == [
        f"{bundle.folder} prefers the runtime 'openvino', and {bundle.model_path} is refused by OpenVINO (no such "
        "operation); onnxruntime runs it"
    ]
    with pytest.raises(InputError, match="refused by OpenVINO"):
        open_session(bundle, runtime="openvino")
    bundle.model_path.write_bytes(b"no graph")
    with pytest.raises(InputError, match="is refused by ONNX Runtime"):
        open_session(bundle, warn=said.append)
    assert len(said) == 1, "nothing stands in"


@needs_openvino
def test_bfloat16_needs_its_instructions(tmp_path, monkeypatch):
    here = runtimes.machine()
    plain = here.model_copy(update={"flags": [flag for flag in here.flags if "bf16" not in flag]})
    monkeypatch.setattr(runtimes, "machine", lambda: plain)
    bundle = write_colours(tmp_path / "model", preferred=Preferred(runtime="openvino-bf16"))
    with pytest.warns(UserWarning, match="needs a processor with bfloat16 instructions; onnxruntime runs it"):
        assert open_session(bundle).runtime == REFERENCE
    with pytest.raises(InputError, match="'openvino-bf16' needs a processor with bfloat16 instructions"):
        open_session(bundle, runtime="openvino-bf16")
