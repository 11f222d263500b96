"""An artifact written again with other attachments: the same `model.onnx` to the byte, without torch."""

from pathlib import Path

from netsmith.artifact.bundle import MODEL, WEIGHTS, Bundle, Provenance, external_files, write_bundle
from netsmith.artifact.golden import Run, make_golden, synthetic_examples
from netsmith.artifact.runtimes import REFERENCE, Warn, open_session
from netsmith.errors import InputError


def repack(
    bundle: Bundle,
    folder: Path,
    *,
    synthetic: bool = False,
    with_weights: bool = True,
    provenance: Provenance | None = None,
    overwrite: bool = False,
    warn: Warn | None = None,
) -> Bundle:
    """Write an artifact again.

    Args:
        bundle: found well formed, with its hashes.
        folder: see `write_bundle`; may be the artifact's own, with `overwrite`.
        synthetic: replace the golden examples with generated ones, so that no picture of the data is shipped.
        with_weights: keep the float weights, where they are there.
        provenance: in place of the artifact's own.
        overwrite: replace an artifact that is already there.
        warn: see `open_session`.

    Returns:
        The new bundle, read back.

    Raises:
        InputError: `folder` exists, or tensors lie outside `model.onnx`; golden examples are to be generated, and a
            runtime that the artifact was judged in cannot run here.
    """
    config = bundle.config
    if outside := external_files(bundle.model_path):
        raise InputError(
            f"{bundle.folder} keeps tensors in {outside[0]}; only artifacts with all in {MODEL} can be copied"
        )
    golden = bundle.golden()
    if synthetic:

        def runs_in(runtime: str) -> Run:
            session = open_session(bundle, runtime=runtime, warn=warn)
            return lambda pixels: session.run(pixels).probabilities

        golden = make_golden(
            synthetic_examples(config.preprocess),
            config.preprocess,
            runs_in(REFERENCE),
            others={runtime: runs_in(runtime) for runtime in golden.others},
        )
    weights = bundle.folder / WEIGHTS
    return write_bundle(
        folder,
        model=bundle.model_path.read_bytes(),
        layout=bundle.layout,
        labels=config.labels,
        preprocess=config.preprocess,
        golden=golden,
        weights=weights.read_bytes() if with_weights and weights.is_file() else None,
        activation=config.activation,
        thresholds=config.thresholds,
        temperature=config.temperature,
        precision=config.precision,
        quantization=config.quantization,
        preferred=config.preferred,
        provenance=provenance or config.provenance,
        overwrite=overwrite,
    )
