"""`results.json`: what a run made, what was measured on it, on which machine, by which commands.

Written last, so its presence means the run is finished; `verify` holds it to its word.
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from netsmith.errors import InputError
from netsmith.run.budget import BudgetRow
from netsmith.run.files import write_text
from netsmith.run.machine import Machine
from netsmith.run.metrics import LARGEST, Interval
from netsmith.run.scores import Metric

_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Latency(BaseModel):
    """Milliseconds of one prediction, batch 1, resize excluded.

    Attributes:
        p50, p90: median and 90th percentile.
        low, high: 95 % interval of p90; the budget is held against `high`.
        noise: how uneven the machine was while measuring, relative, >= 0.
        reference_us: microseconds of a fixed workload beside it, which tell how fast the machine was; None where it was
            not read.
    """

    model_config = _STRICT

    p50: float = Field(gt=0.0)
    p90: float = Field(gt=0.0)
    low: float = Field(gt=0.0)
    high: float = Field(gt=0.0)
    noise: float = Field(ge=0.0)
    reference_us: float | None = Field(default=None, gt=0.0)


class Top1(BaseModel):
    """A share per split; None where the split was not read. Top-1: of pictures whose most probable class is right."""

    model_config = _STRICT

    val: Interval | None
    test: Interval | None


class Final(BaseModel):
    """The artifact that a run ships.

    Attributes:
        model: name of the network.
        precision: of its graph.
        runtime, threads: with which it was measured and which it prefers.
        params, macs: of the network.
        size_bytes: bytes the predictor must open.
        memory_bytes: largest resident memory of a fresh process with this model alone; None where the system does not
            tell, and in older runs.
        latency_ms: of one prediction.
        top1: per split; None for tags.
        map, f1_macro, f1_micro: of tags, per split: mean average precision, and F1 at the artifact's thresholds; absent
            for one class per picture.
    """

    model_config = _STRICT

    model: str
    precision: Literal["float32", "float16", "bfloat16", "int8"]
    runtime: str
    threads: int = Field(ge=1, le=LARGEST)
    params: int = Field(ge=0, le=LARGEST)
    macs: int = Field(ge=0, le=LARGEST)
    size_bytes: int = Field(gt=0, le=LARGEST)
    memory_bytes: int | None = Field(default=None, gt=0, le=LARGEST)
    latency_ms: Latency
    top1: Top1 | None = None
    map: Top1 | None = None
    f1_macro: Top1 | None = None
    f1_micro: Top1 | None = None

    @model_validator(mode="after")
    def _one_task(self) -> Self:
        tags = (self.map, self.f1_macro, self.f1_micro)
        if any(each is None for each in tags) != (self.top1 is not None) or (self.top1 is not None and any(tags)):
            raise ValueError("give either top1, or map, f1_macro and f1_micro")
        return self

    @model_serializer(mode="wrap")
    def _without_the_other_task(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = serialise(self)
        others = ("map", "f1_macro", "f1_micro") if self.top1 is not None else ("top1",)
        return {name: value for name, value in fields.items() if name not in others}

    @property
    def metric(self) -> Metric:
        """What the model is judged by."""
        return "top1" if self.top1 is not None else "map"

    def scores(self, split: Literal["val", "test"]) -> dict[str, Interval]:
        """All that is recorded of a split, by name; empty where it was not read."""
        kinds = {"top1": self.top1, "map": self.map, "f1_macro": self.f1_macro, "f1_micro": self.f1_micro}
        found = {name: getattr(each, split) for name, each in kinds.items() if each is not None}
        return {name: interval for name, interval in found.items() if interval is not None}

    @property
    def headline(self) -> Top1:
        """It, per split."""
        found = self.top1 or self.map
        assert found is not None, "one of the two is there"
        return found


class Result(BaseModel):
    """A finished run.

    Attributes:
        format: version of this record.
        final: the artifact that ships.
        budget: each limit against its measurement; empty without a budget.
        machine, versions: where it was measured and with what.
        commands: what was typed, the first run and each resume, as one line each.
        artifact: SHA-256 of the model folder.
    """

    model_config = _STRICT

    format: Literal[1] = 1
    final: Final
    budget: list[BudgetRow]
    machine: Machine
    versions: dict[str, str]
    commands: list[str]
    artifact: str = Field(pattern=r"^[0-9a-f]{64}$")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read `results.json`.

        Raises:
            InputError: absent, not JSON, or not this record; names the first field that is wrong.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise InputError(f"there is no {path}; the run did not finish, go on with --resume") from error
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror}); restore it from a copy") from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise InputError(f"{path} is not a result: {where}: {first['msg']}; run again or restore it") from error

    def save(self, path: Path) -> None:
        """Write the record as indented JSON, whole or not at all."""
        write_text(path, self.model_dump_json(indent=2) + "\n")
