"""TrainingOptions: the typed view of a config's `meta`, field by field. The one table of what absent means."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StringConstraints, field_validator, model_validator

from influencerai.domain.keyword_model import KeywordModel

Optimizer = Literal["AdamW", "AdamW8bit", "Adafactor", "Prodigy", "Lion", "ScheduleFreeAdamW"]
LrScheduler = Literal["cosine", "constant", "linear", "cosine_with_restarts"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
TargetModules = Literal["attention", "transformer", "all"]
PredictionType = Literal["epsilon", "v_prediction"]
FileFormat = Literal["kohya", "diffusers", "both"]
LONGEST_TEXT = 2000
Text = Annotated[str, StringConstraints(max_length=LONGEST_TEXT)]


class TrainingOptions(KeywordModel):
    """Everything beyond the contract's own fields that changes what is trained."""

    # Optimization
    optimizer: Optimizer = Field(
        default="AdamW", description="AdamW8bit needs less memory; Prodigy wants learningRate 1."
    )
    lr_scheduler: LrScheduler = Field(default="cosine", description="Shape of the learning rate after the warm-up.")
    lr_cycles: StrictInt = Field(default=3, ge=1, le=100, description="Cycles of cosine_with_restarts.")
    warmup_ratio: StrictFloat = Field(
        default=0.05, ge=0, le=0.5, description="Share of the steps with a rising learning rate."
    )
    warmup_steps: StrictInt | None = Field(default=None, ge=0, description="Warm-up in steps; replaces warmupRatio.")
    weight_decay: StrictFloat = Field(default=0.01, ge=0, le=1, description="Decoupled weight decay.")
    max_grad_norm: StrictFloat = Field(
        default=1.0, ge=0, description="Gradient norm is clipped to this; 0 turns it off."
    )
    gradient_accumulation: StrictInt = Field(default=1, ge=1, le=256, description="Batches per optimizer step.")
    ema: StrictBool = Field(default=False, description="Export an exponential moving average of the weights.")
    ema_decay: StrictFloat = Field(default=0.999, gt=0, lt=1, description="Upper bound of the EMA's decay.")
    # Loss
    min_snr_gamma: StrictFloat | None = Field(
        default=5.0, gt=0, description="Min-SNR weighting (arXiv:2303.09556); null: off."
    )
    noise_offset: StrictFloat = Field(default=0.0, ge=0, le=1, description="Per-channel offset added to the noise.")
    prediction_type: PredictionType | None = Field(default=None, description="Default: what the base model predicts.")
    zero_terminal_snr: StrictBool | None = Field(
        default=None, description="Rescale betas (arXiv:2305.08891); default: the model's."
    )
    # Network
    target_modules: TargetModules = Field(
        default="transformer",
        description="attention: q, k, v, out; transformer: also feed-forward and projections; all: also 3x3 conv.",
    )
    train_text_encoder: StrictBool = Field(default=False, description="Also train a LoRA of the text encoders.")
    text_encoder_learning_rate: StrictFloat | None = Field(
        default=None, ge=0, le=1, description="Default: half of learningRate. Prodigy has one rate for all."
    )
    # Captions and images
    trigger_word: Text | None = Field(
        default=None, description="Captions images that have none; checked in the others."
    )
    caption_dropout: StrictFloat = Field(
        default=0.0, ge=0, le=1, description="Share of samples trained with an empty caption."
    )
    shuffle_tags: StrictBool = Field(default=False, description="Shuffle the comma-separated parts of a caption.")
    keep_tokens: StrictInt = Field(
        default=1, ge=0, description="Leading parts of a caption that shuffling leaves in place."
    )
    flip: StrictBool = Field(
        default=False, description="Mirror half of the samples; leave off for asymmetric characters."
    )
    repeats: StrictInt = Field(default=1, ge=1, le=1000, description="Times each image is seen per epoch.")
    images_seen: StrictInt | None = Field(
        default=None,
        ge=1,
        le=10**7,
        exclude_if=lambda value: value is None,  # so that specs without it keep their ids
        description="Images to be seen in all: chooses repeats by the number of images and epochs.",
    )
    aspect_ratio_buckets: StrictBool = Field(
        default=True, description="Train in several aspect ratios instead of a square crop."
    )
    bucket_min: StrictInt | None = Field(
        default=None, ge=64, le=4096, description="Shortest side; default half the resolution."
    )
    bucket_max: StrictInt | None = Field(
        default=None, ge=64, le=4096, description="Longest side; default twice the resolution."
    )
    bucket_step: StrictInt | None = Field(
        default=None, ge=8, le=512, description="Multiple of every side; default 64 (32 below 256)."
    )
    # Validation, checkpoints, samples
    validation_split: StrictFloat = Field(
        default=0.0, ge=0, lt=1, description="Share of the images held out for validation loss."
    )
    validation_every_n_epochs: StrictInt = Field(
        default=1, ge=1, description="How often the validation loss is measured."
    )
    save_every_n_epochs: StrictInt | None = Field(default=None, ge=1, description="Default: a quarter of the epochs.")
    keep_last_n: StrictInt | None = Field(default=None, ge=1, description="Keep only the last N epoch files.")
    sample_prompts: tuple[Text, ...] = Field(default=(), max_length=32, description="Drawn while training.")
    sample_every_n_epochs: StrictInt = Field(default=1, ge=1, description="How often samplePrompts are drawn.")
    # Execution
    seed: StrictInt = Field(default=42, ge=0, le=2**63 - 1, description="Source of every random draw.")
    precision: Precision = Field(
        default="auto", description="auto: bf16 on a GPU that has it, fp16 on another, fp32 on a CPU."
    )
    gpus: StrictInt = Field(
        default=1,
        ge=1,
        le=16,
        description="Devices that share each batch; the result is the same to rounding.",
    )
    gradient_checkpointing: StrictBool = Field(
        default=False, description="Recompute activations: less memory, 1.5-1.8x time."
    )
    file_format: FileFormat = Field(default="kohya", description="Layout of the exported files.")

    @classmethod
    def _keywords(cls, fields: dict[str, Any], *, base: Self | None = None) -> dict[str, Any]:
        """In Python one prompt counts as a list of one."""
        return {
            name: (value,) if name in ("sample_prompts", "samplePrompts") and isinstance(value, str) else value
            for name, value in fields.items()
        }

    @field_validator("sample_prompts", mode="before")
    @classmethod
    def _check_sample_prompts(cls, prompts: Any) -> Any:
        if not isinstance(prompts, list | tuple):
            raise ValueError("Input should be a list of texts")
        return prompts

    @model_validator(mode="after")
    def _check_bucket_range(self) -> Self:
        if self.bucket_min and self.bucket_max and self.bucket_min > self.bucket_max:
            raise ValueError(f"bucketMin {self.bucket_min} exceeds bucketMax {self.bucket_max}")
        return self
