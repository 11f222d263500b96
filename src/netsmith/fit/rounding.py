"""The int8 graphs of one model: what a rung of the ladder says, carried out; what several need is computed once.

Ranges of activations come from training pictures, prepared as all pictures are that are judged by. Nothing here judges.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from netsmith.artifact.quantization import Calibration, Quantization
from netsmith.artifact.runtimes import choose_runtime
from netsmith.compress.quantize.calibrate import Observed, observe
from netsmith.compress.quantize.equalize import equalize
from netsmith.compress.quantize.graph import Graph
from netsmith.compress.quantize.ladder import Rung
from netsmith.compress.quantize.qdq import Rounding, quantize
from netsmith.compress.quantize.sensitivity import rank
from netsmith.data.cache import prepared
from netsmith.fit.calibration import calibration_pictures
from netsmith.fit.in_runtimes import Made
from netsmith.fit.stage import Stage
from netsmith.fit.training_rounded import Learned, compose, float_model, train_rounded
from netsmith.run.machine import machine
from netsmith.run.recipe import Recipe

VNNI = {"avx512_vnni", "avx_vnni"}
"""Either of these multiplies bytes without saturating; on other x86 processors weights have seven bits."""
SENSITIVITY_PICTURES = 64


@dataclass(frozen=True, kw_only=True)
class Rounder:
    """Makes the graphs of rungs.

    Attributes:
        stage: at work.
        graph: of its parent, float.
        calibration: the only way of choosing ranges; all of them in turn when None.
        pictures: training pictures to calibrate on, at most.
        seed: of which pictures those are and of training.
        training: fields of the recipe that were given.
        config: a recipe file under them, or None.
    """

    stage: Stage
    graph: Graph
    calibration: Calibration | None
    pictures: int
    seed: int
    training: Mapping[str, Any]
    config: Path | None = None
    _known: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)

    def round(self, rung: Rung) -> Made:
        """The model of a rung.

        Raises:
            Diverged: its training broke down.
        """
        assert rung.calibration is not None, "it is int8"
        rounding = self._rounding(rung)
        learned: Learned | None = None
        if rung.trained:
            model, learned = self._trained(rung.calibration, rounding)
        else:
            source = self._equalized if rung.equalized else self.graph
            observed = self._observed(source)
            model = quantize(source, observed.ranges(rung.calibration), rounding, means=observed.means)
        quantization = Quantization(
            source=sha256(learned.model if learned is not None else self.graph.model).hexdigest(),
            rung=str(rung),
            per_channel=rung.per_channel,
            bits=self._bits,
            calibration=rung.calibration,
            pictures=len(self._pixels),
            excluded=tuple(sorted(rounding.excluded)),
            equalized=rung.equalized,
        )
        return Made(model=model, precision="int8", quantization=quantization, learned=learned)

    @cached_property
    def recipe(self) -> Recipe:
        """Of training with rounding.

        Raises:
            InputError: what was asked for does not go together.
        """
        return compose(self.stage, self.training, seed=self.seed, config=self.config)

    def _trained(self, calibration: Calibration, rounding: Rounding) -> tuple[bytes, Learned]:
        """The rounded graph of the network that was trained on; its ranges are those that it was trained with."""
        stage, recipe = self.stage, self.recipe
        recipe.save(stage.run.recipe)
        network = stage.parent.network()
        before = Graph(float_model(stage.parent, network).model)
        ranges = self._observed(before).ranges(calibration)
        learned = train_rounded(stage, network, quantize(before, ranges, rounding), recipe, bits=self._bits)
        return quantize(Graph(learned.model), ranges, rounding), learned

    def _rounding(self, rung: Rung) -> Rounding:
        assert rung.calibration is not None, "it is int8"
        rounding = Rounding(per_channel=rung.per_channel, bits=self._bits, correct_bias=rung.equalized)
        if not rung.excluded:
            return rounding
        key = f"rank {rung.calibration} {rung.per_channel} {rung.equalized}"
        if key not in self._known:
            source = self._equalized if rung.equalized else self.graph
            self._known[key] = rank(
                source, self._observed(source).ranges(rung.calibration), rounding, self._pixels[:SENSITIVITY_PICTURES],
                threads=self._threads, progress=self.stage.session.progress,
            )  # fmt: skip
        return replace(rounding, excluded=frozenset(name for name, _ in self._known[key][: rung.excluded]))

    @cached_property
    def _threads(self) -> int:
        """Of the float model, for all that is computed and not timed: at most the cores here, which is said where the
        model is timed."""
        return choose_runtime(self.stage.parent.bundle, warn=lambda message: None)[1]

    @cached_property
    def _bits(self) -> Literal[7, 8]:
        """Of a weight, by a plan row."""
        here = machine()
        saturates = here.arch == "x86_64" and not VNNI & {*here.flags}
        decided = self.stage.finisher.plan.decide(
            "quantize.bits",
            at=0,
            compute=lambda: 7 if saturates else 8,
            why="without VNNI products of eight bits saturate" if saturates else "products of eight bits are exact",
        )
        return 7 if decided == 7 else 8

    @cached_property
    def _equalized(self) -> Graph:
        return Graph(equalize(self.graph, self._observed(self.graph).peaks))

    def _observed(self, graph: Graph) -> Observed:
        key = f"observed {sha256(graph.model).hexdigest()}"
        if key not in self._known:
            self._known[key] = observe(
                graph, self._pixels, counted=self.calibration != "minmax", threads=self._threads,
                progress=self.stage.session.progress,
            )  # fmt: skip
        return self._known[key]

    @cached_property
    def _pixels(self) -> NDArray[np.uint8]:
        """Training pictures, prepared as all that are judged by."""
        dataset = self.stage.dataset
        items = calibration_pictures(dataset, self.pictures, seed=self.seed)
        progress = self.stage.session.progress
        pictures = prepared(
            dataset,
            items,
            self.stage.parent.bundle.config.preprocess,
            progress=lambda done, total: progress("preparing calibration pictures", done, total),
        )
        return pictures.pixels
