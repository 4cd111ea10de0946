"""What a model is made of, as ``config.json`` holds it (design, section 11)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from .data.names import check_name
from .data.preparation import Preparation

__all__ = ["FORMAT_VERSION", "FlowConfig", "KnowledgeConfig", "TzKConfig", "paper_knowledge"]

FORMAT_VERSION = 3


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)


class FlowConfig(_Config):
    """The t-flow: of images if the observation is (C, H, W), of vectors if it is (C,)."""

    levels: int = Field(3, ge=1, le=8, description="levels L of the image flow; unused for vectors")
    steps: int = Field(8, ge=1, le=256, description="steps S of flow (a level, for images)")
    width: int = Field(64, ge=1, le=8192, description="hidden width of the coupling networks")

    def check_sides(self, height: int, width: int) -> None:
        """Refuses images that L levels cannot halve so often.

        Raises:
            ValueError: a side is no multiple of 2^levels.
        """
        multiple = 2**self.levels
        if height % multiple or width % multiple:
            raise ValueError(
                f"{height}×{width} images cannot go through {self.levels} levels of the t-flow: "
                f"both sides must be multiples of 2^levels = {multiple}"
            )


class KnowledgeConfig(_Config):
    """One knowledge type: the sizes of its four factors (paper, Eq. 5–7 and Appendix B)."""

    label: str | None = Field(None, description="the name as the data has it, for display")
    code_dim: int = Field(10, ge=1, le=4096, description="C, elements of the code c")
    code_prior: Literal["normal", "volume_preserving", "flow"] = Field(
        "normal",
        description="p_dec(c): N(0, I); an additive flow to it; or a free flow, which the "
        "objective `tzk` refuses because it rewards shrinking c for ever",
    )
    code_steps: int = Field(4, ge=1, le=64, description="steps of the flows on c")
    code_width: int = Field(64, ge=1, le=8192, description="hidden width of the flows on c")
    encoder_width: int = Field(48, ge=1, le=8192, description="width of the regressors t → c")
    decoder_stem: int = Field(32, ge=1, le=8192, description="channels after the linear c → map")
    decoder_width: int = Field(64, ge=1, le=8192, description="width of the regressors c → z")
    decoder_layers: int = Field(2, ge=1, le=16, description="3×3 layers of the regressors c → z")
    decoder_hidden: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = Field(
        (), description="widths of linear layers before those, in regressors from a code to a map"
    )
    z_steps: int = Field(4, ge=0, le=64, description="steps of the z-flow, 0 for none")
    z_width: int = Field(64, ge=1, le=8192, description="hidden width of the z-flow")
    z_context: bool = Field(
        True,
        description="whether the z-flow sees c; on maps, the regressor's features of c",
    )
    discriminator_width: int = Field(48, ge=1, le=8192, description="width of both discriminators")
    discriminator_head: Literal["pool", "flatten"] = Field(
        "pool", description="head of p_enc(e|t) on images: mean over positions, or all of them"
    )
    trunk: Literal["squeeze", "paper"] = Field(
        "squeeze", description="networks on images squeeze first, or convolve at full size first"
    )
    code_log_sigma: tuple[float, float] = Field(
        (-5.0, 1.0), description="limits of log σ of p_enc(c|e,t), softly kept"
    )
    z_log_sigma: tuple[float, float] = Field(
        (-3.0, 1.0), description="limits of log σ of p_dec(z|e,c), softly kept"
    )
    child: TzKConfig | None = Field(None, description="a TzK whose observation is the code c")

    @field_validator("code_log_sigma", "z_log_sigma")
    @classmethod
    def _limits_hold_zero(cls, limits: tuple[float, float]) -> tuple[float, float]:
        if not limits[0] < 0 < limits[1]:
            raise ValueError("must be a negative and a positive number: log σ starts at 0")
        return limits


class TzKConfig(_Config):
    """A whole model: its observation, its t-flow, its knowledge."""

    format_version: Literal[3] = Field(FORMAT_VERSION, description="of config.json")
    observation: tuple[int, ...] = Field(description="(C, H, W) of an image, or (C,) of a code")
    flow: FlowConfig = Field(default_factory=FlowConfig, description="the t-flow's sizes")
    knowledge: dict[str, KnowledgeConfig] = Field(
        default_factory=dict, description="its kinds of knowledge by name"
    )
    exclusive: bool = Field(
        False, description="whether the kinds of this level exclude each other (ten digits)"
    )
    preparation: Preparation | None = Field(None, description="how images become observations")
    statistics: dict[str, Any] = Field(
        default_factory=dict, description="figures taken on held-out images after training"
    )

    @field_validator("observation")
    @classmethod
    def _image_or_vector(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) not in (1, 3) or min(shape) < 1:
            raise ValueError("must be (C, H, W) or (C,), all positive")
        return shape

    @field_validator("knowledge")
    @classmethod
    def _names(cls, knowledge: dict[str, KnowledgeConfig]) -> dict[str, KnowledgeConfig]:
        for name in knowledge:
            check_name(name)
        return knowledge

    @model_validator(mode="after")
    def _children_observe_codes(self) -> TzKConfig:
        for name, kind in self.knowledge.items():
            if kind.child is not None and kind.child.observation != (kind.code_dim,):
                raise ValueError(
                    f"the child of {name!r} observes {kind.child.observation}, "
                    f"but its code has the shape ({kind.code_dim},)"
                )
        return self


KnowledgeConfig.model_rebuild()


def paper_knowledge(code_dim: int = 10, **changes: Any) -> KnowledgeConfig:
    """The sizes of the paper's Appendix B, for 32×32 images."""
    sizes: dict[str, Any] = {
        "code_dim": code_dim,
        "code_prior": "volume_preserving",
        "code_steps": 4,
        "code_width": 10 * code_dim,
        "encoder_width": 80,
        "decoder_stem": 80,
        "decoder_width": 512,
        "decoder_layers": 3,
        "z_steps": 4,
        "z_width": 512,
        "z_context": False,
        "discriminator_width": 10 * code_dim,
        "discriminator_head": "flatten",
        "trunk": "paper",
    }
    return KnowledgeConfig(**(sizes | changes))
