"""What turns a picture into a model's input. It belongs to the model and travels with it in `config.json`."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator

LARGEST_SIZE = 4096  # pixels
LARGEST_RESIZED = 2 * LARGEST_SIZE  # of which the centre is cut
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Preprocess(BaseModel):
    """Rules of evaluation preprocessing; `data.prepare.prepare` carries them out, the model normalises.

    Attributes:
        size: R, the side of the square model input, pixels.
        resize: "shorter" resizes the shorter side to round(size / crop) and cuts the centre R x R;
            "squash" resizes both sides to R (aspect ratio lost, nothing cut).
        crop: share of the resized shorter side that the centre crop keeps, at most 1, and so large that size / crop is
            at most `LARGEST_RESIZED`; ignored by "squash".
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

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.size > self.crop * LARGEST_RESIZED:
            raise ValueError(f"pictures are resized to size / crop, which must be at most {LARGEST_RESIZED} pixels")
        return self
