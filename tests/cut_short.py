"""Trainings that end once their model is exported: measuring and verifying takes seconds, and is no matter of what came
before."""

import pytest

from netsmith.errors import CheckError
from netsmith.fit.finish import Finisher


def ends_when_exported(patch: pytest.MonkeyPatch) -> None:
    """Runs end there with exit code 1, and say "exported"; `patch` undoes it."""

    def stop(self: Finisher, bundle: object, training: object = None) -> None:
        raise CheckError("exported")

    patch.setattr(Finisher, "complete", stop)
    patch.setattr(Finisher, "threads", lambda self, model, **asked: 1)
