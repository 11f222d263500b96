"""What turns a picture into a model's input. It belongs to the model and travels with it in `config.json`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

LARGEST_SIZE = 4096  # pixels
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Preprocess(BaseModel):
    """Rules of evaluation preprocessing; `data.prepare.prepare` carries them out, the model normalises.

    Attributes:
        size: R, the side of the square model input, pixels.
        resize: "shorter" resizes the shorter side to round(size / crop) and cuts the centre R x R;
            "squash" resizes both sides to R (aspect ratio lost, nothing cut).
        crop: share of the resized shorter side that the centre crop keeps, 0 < crop <= 1; ignored by "squash".
        interpolation: Pillow filter, antialiased as Pillow does.
        mean, std: per RGB channel, in units of [0, 1] pixel values; std above 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    size: int = Field(ge=1, le=LARGEST_SIZE)
    resize: Literal["shorter", "squash"] = "shorter"
    crop: float = Field(default=1.0, gt=0.0, le=1.0)
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = IMAGENET_STD
