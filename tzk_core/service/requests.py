"""What each endpoint may be asked: one model an endpoint, every field described.

The descriptions are told to whoever sends a wrong value, as what would be right.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tzk_core.errors import InvalidRequest
from tzk_core.service.fields import (
    CODES_AN_IMAGE,
    MOST_IMAGES,
    SEVERAL_COST,
    Count,
    DecoderDraws,
    Draws,
    Encoded,
    Flag,
    Knowledge,
    Names,
    Number,
    Seed,
    Steps,
)

__all__ = [
    "Asked",
    "InterpolateRequest",
    "NllRequest",
    "PosteriorRequest",
    "SampleRequest",
]


def _refuse(field: str, detail: str) -> NoReturn:
    raise InvalidRequest(f"{field}: {detail}", pointer=f"/{field}")


class Asked(BaseModel):
    """What every request has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    needs_image: ClassVar[bool] = True
    """Whether an empty body is wrong."""

    formats: ClassVar[tuple[str, ...]] = ()
    """The forms that the answer can take, where there are several."""

    given: Knowledge | None = Field(
        None,
        description="the path of a knowledge type, such as mnist or mnist/3; also in the URL, "
        "after the version: /predictions/<endpoint>/1.0/mnist/3",
    )
    seed: Seed | None = Field(
        None,
        description="a whole number, 0 to 2^63 - 1, from which every random number comes; "
        "fresh and echoed when left out",
    )

    @property
    def cost(self) -> tuple[int, str]:
        """How many images' worth of work this is, and the field that it follows from."""
        raise NotImplementedError(f"{type(self).__name__} has no cost")


class NllRequest(Asked):
    """How likely is this image?"""

    image: Encoded = Field(description="the bytes of an image file (base64 in JSON)")
    draws: Draws | None = Field(
        None,
        description="1, 16 or 256: draws of the code with given (16 when left out), draws of the "
        "dequantisation noise without (1 when left out)",
    )

    @property
    def cost(self) -> tuple[int, str]:
        draws = self.draws or 1
        return (draws if self.given is None else _of_codes(draws)), "draws"


class SampleRequest(Asked):
    """New images, of a kind or of all."""

    needs_image: ClassVar[bool] = False
    formats: ClassVar[tuple[str, ...]] = ("png", "grid", "json", "npy")

    given: Names | None = Field(
        None,
        description="the path of a knowledge type, such as mnist/3, or several that all apply, as "
        "a list (comma-separated in a URL or a multipart field)",
    )
    path: Names | None = Field(None, description="another name for given")
    absent: Names | None = Field(
        None, description="paths of knowledge that does not apply, written as given is"
    )
    n: Count = Field(
        1,
        description=f"the number of images, 1 to {MOST_IMAGES}; of several kinds at once 1 to "
        f"{MOST_IMAGES // SEVERAL_COST}",
    )
    temperature: Number = Field(
        1.0, description="a finite number of 0 or more that scales the latent noise; 1 is exact"
    )
    code_temperature: Number = Field(
        1.0, description="a finite number of 0 or more that scales the codes; only 1 is exact"
    )
    paper_sampler: Flag = Field(
        False, description="true skips the acceptance of codes, as the paper does"
    )
    format: Literal["png", "grid", "json", "npy"] | None = Field(
        None,
        description="png (one picture, a grid when n > 1), grid, json or npy (uint8, n×C×H×W); "
        "by the Accept header when left out",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_path(cls, values):
        if not isinstance(values, dict) or values.get("path") is None:
            return values
        if values.get("given") not in (None, values["path"]):
            _refuse("path", "given and path name the same thing; send one of them")
        return values | {"given": values["path"]}

    @property
    def title(self) -> str | None:
        """What was given, for an answer: ``bit0,bit1,-bit2``, the last one absent."""
        kinds = [*(self.given or []), *(f"-{path}" for path in self.absent or [])]
        return ",".join(kinds) or None

    @property
    def several(self) -> bool:
        """Whether the images are of a product of kinds."""
        return len([*(self.given or []), *(self.absent or [])]) > 1

    @property
    def cost(self) -> tuple[int, str]:
        return self.n * (SEVERAL_COST if self.several else 1), "n"


class PosteriorRequest(Asked):
    """Which kinds of knowledge apply to this image?"""

    image: Encoded = Field(description="the bytes of an image file (base64 in JSON)")
    knowledge: Names | None = Field(
        None,
        description="the paths to answer for, as a list (comma-separated in a multipart field); "
        "all of them when left out",
    )
    draws: Draws = Field(16, description="1, 16 or 256 draws of the code for what lies below")
    decoder_draws: DecoderDraws = Field(
        0, description="256 draws of the code to estimate `decoder` too, or 0 to leave it out"
    )

    @property
    def cost(self) -> tuple[int, str]:
        field = max("draws", "decoder_draws", key=lambda name: getattr(self, name))
        return _of_codes(getattr(self, field)), field


class InterpolateRequest(Asked):
    """The images between two or four others."""

    formats: ClassVar[tuple[str, ...]] = ("png", "grid", "json", "npy")

    images: list[Encoded] = Field(
        description="2 or 4 image files: a list of base64 in JSON, multipart fields image1 to "
        "image2 or image4 otherwise; four are the corners top left, top right, bottom left, "
        "bottom right",
    )
    steps: Steps | None = Field(
        None,
        description="how many images, corners included: a number from 2, or rows and columns "
        f"(8x8; [8, 8] in JSON) between four; at most {MOST_IMAGES} in all; 8 when left out",
    )
    method: Literal["linear", "spherical"] = Field("linear", description="linear or spherical")
    space: Literal["z", "c"] = Field(
        "z", description="z (the latent state) or c (the code of given, which it needs)"
    )
    format: Literal["png", "grid", "json", "npy"] | None = Field(
        None,
        description="png or grid (one picture), json, or npy (uint8, rows·columns×C×H×W); by the "
        "Accept header when left out",
    )

    @model_validator(mode="after")
    def _fits(self):
        corners = len(self.images)
        if corners not in (2, 4):
            _refuse("images", f"{corners} images were sent, and 2 or 4 are needed")
        if self.space == "c" and self.given is None:
            _refuse("given", "space c needs given, the knowledge whose code is meant")
        rows, columns = self.shape
        if corners == 2 and (rows != 1 or columns < 2):
            _refuse("steps", "between two images, steps is one number of 2 or more")
        if corners == 4 and min(rows, columns) < 2:
            _refuse("steps", "between four images, rows and columns are 2 or more each")
        if rows * columns > MOST_IMAGES:
            _refuse("steps", f"{rows}×{columns} images are more than {MOST_IMAGES}")
        return self

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the grid, (1, steps) between two images."""
        steps = self.steps or (8,)
        if len(steps) == 2:
            return steps
        return (steps[0], steps[0]) if len(self.images) == 4 else (1, steps[0])

    @property
    def cost(self) -> tuple[int, str]:
        rows, columns = self.shape
        return rows * columns, "steps"


def _of_codes(draws: int) -> int:
    return max(1, draws // CODES_AN_IMAGE)
