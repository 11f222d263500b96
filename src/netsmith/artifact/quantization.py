"""What `config.json` says of a rounded graph: how it was made, and of what."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Calibration = Literal["minmax", "entropy", "percentile"]
"""How ranges of activations are chosen, see `netsmith.compress.quantize.calibrate`."""


class Quantization(BaseModel):
    """How the graph was rounded, and of what.

    `model.safetensors`, where it is shipped, holds the float32 weights as they were before: before equalization, bias
    correction and rounding. `source` is the graph that was made of them.

    Attributes:
        source: SHA-256 of the float `model.onnx` that was rounded.
        rung: of the ladder, in words.
        per_channel: whether every output of a layer has a scale of its own.
        bits: of a weight: 7 where the processor's products of 8 saturate.
        calibration: how ranges of activations were chosen.
        pictures: training pictures they were chosen from.
        excluded: names of nodes that stay float, beside those that have no kernel of integers.
        equalized: whether channels were rescaled and biases corrected before.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    source: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    rung: str
    per_channel: bool
    bits: Literal[7, 8]
    calibration: Calibration
    pictures: int = Field(ge=1)
    excluded: tuple[str, ...]
    equalized: bool
