"""netsmith: from a folder of labelled images and a deployment budget to the most accurate image classifier that fits.

The public names below are imported when first used, so that `import netsmith` costs nothing and a predictor never
imports torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netsmith.arch.names import list_models
    from netsmith.artifact.predictor import Predictor
    from netsmith.models.build import create_model, load_model

__version__ = "0.1.0"
__all__ = ["Predictor", "create_model", "list_models", "load_model"]

_HOMES = {
    "Predictor": "netsmith.artifact.predictor",
    "create_model": "netsmith.models.build",
    "list_models": "netsmith.arch.names",
    "load_model": "netsmith.models.build",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'netsmith' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
