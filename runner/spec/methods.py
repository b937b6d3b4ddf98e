"""What a stage may add to plain training: adapters, mixtures, and terms against forgetting."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from runner.spec.blocks import Block, Names, one_or_many


class Lora(Block):
    """Adapter training by PEFT (Hu et al. 2021, arXiv:2106.09685). Names and defaults are those of its LoraConfig."""

    r: Annotated[int, Field(ge=1)] = 8
    """Rank of the two matrices."""
    alpha: Annotated[float, Field(gt=0)] = 16.0
    """What the adapter adds is scaled by alpha / r; with `use_rslora` by alpha / sqrt(r)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of the adapter's input."""
    targets: Annotated[tuple[str, ...], BeforeValidator(one_or_many), Field(min_length=1)] = ("all-linear",)
    """Names of the modules that get one, for example `[q_proj, v_proj]`; `all-linear` is every linear layer but the
    output."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Which biases are trained too."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(r) (Kalajdzievski 2023, arXiv:2312.03732)."""
    use_dora: bool = False
    """Train the magnitudes of the weights apart from their directions (Liu et al. 2024, arXiv:2402.09353)."""
    quantize: Literal["4bit", "8bit"] | None = None
    """Load the base in so many bits (QLoRA, arXiv:2305.14314), where bitsandbytes runs."""
    l2: Annotated[float, Field(ge=0)] = 0.0
    """Adds l2 times the mean of the Frobenius norms of the adapter's matrices A and B to the loss of pretrain and
    sft."""


class Kl(Block):
    """A pull towards what the stage's starting checkpoint says: weight times KL(start || now), the mean over tokens."""

    weight: Annotated[float, Field(gt=0)]
    """Beside the cross-entropy's 1."""
    data: Annotated[tuple[str, ...], BeforeValidator(one_or_many), Field(min_length=1)] | None = None
    """Data sets on whose tokens the two are compared; their answers are not learned. Default: the supervised tokens of
    the step's own rows."""
    rows: Annotated[int, Field(ge=1)] | None = None
    """With `data`: rows of it per optimizer step. Default: `global_batch_size`."""

    @model_validator(mode="after")
    def _rows_of_data(self) -> Kl:
        if self.rows is not None and self.data is None:
            raise ValueError("rows belongs to data; without data the step's own rows are compared")
        return self


class Ewc(Block):
    """Elastic weight consolidation (Kirkpatrick et al. 2017, arXiv:1612.00796): weight / 2 times the sum over the
    trained parameters of F (parameter - start)^2, F the diagonal of the Fisher information on `data`."""

    weight: Annotated[float, Field(gt=0)]
    """The paper's lambda."""
    data: Names
    """Data sets whose knowledge is to be kept; F is measured on them at the starting checkpoint, once."""
    rows: Annotated[int, Field(ge=1)] = 512
    """F is the mean of the squared gradients of so many rows, drawn with the seed; all, where there are fewer."""


class Replay(Block):
    """Rows of earlier data, mixed into each epoch of a stage."""

    of: Names
    """Data sets, or earlier stages: their data."""
    ratio: Annotated[float, Field(gt=0)]
    """Replayed rows per row of the stage's own data: 0.25 makes a fifth of each epoch old."""
    buffer: Annotated[int, Field(ge=1)] | None = None
    """Only so many rows are ever replayed, chosen once with the seed. Default: every row has its turn before one comes
    again."""


class Part(Block):
    """How often the rows of one data set are seen in an epoch of a stage. Without one, each row once."""

    epochs: Annotated[float, Field(gt=0)] | None = None
    """Passes over it: 2 shows each row twice, 0.5 half of the rows, and the other half in the next epoch."""
    rows: Annotated[int, Field(ge=1)] | None = None
    """So many of its rows in an epoch; those not seen yet come first."""
    weight: Annotated[float, Field(gt=0)] | None = None
    """Its share beside the weights of the others, of as many rows as the weighted data sets have together."""
    oversample: str | None = None
    """A column: rows of its rarer values are repeated until each value has as many rows as the most frequent one. These
    rows are then what epochs and weights count."""

    @model_validator(mode="after")
    def _one_amount(self) -> Part:
        given = [name for name in ("epochs", "rows", "weight") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both say how many rows; give one")
        if not given and self.oversample is None:
            raise ValueError("give epochs, rows, weight or oversample")
        return self


class StopWhen(Block):
    """Ends a stage early, by its probes."""

    suite: str
    """The suite whose pass rate is watched; it must be asked at this stage."""
    worse_for: Annotated[int, Field(ge=1)] = 2
    """Training ends at the checkpoint that is the so many-th in a row below the best one so far."""
