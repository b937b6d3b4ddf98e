"""The recipe language: one frozen model per block of a recipe, each field documented where it stands.

The models hold what a recipe says after YAML, `extends`, `--set` and `vars` are resolved. Checks that need more than
one block (does the stage exist, is the column there) are in `runner.recipe`; everything later trusts these models.
"""

from runner.spec.blocks import FORMAT_VERSION, NAME_PATTERN, Block, Name
from runner.spec.data import ROW_TEMPLATES, Data, Filter, FromFile, Negative, Pick, Repeat, Sample, Split, Text, Turn
from runner.spec.launching import DEEPSPEED, RENDEZVOUS_PATTERN, SLURM_TIME_PATTERN, Launch, Slurm
from runner.spec.methods import Ewc, Kl, Lora, Part, Replay, StopWhen
from runner.spec.models import CHAT_TEMPLATES, ExtendVocabulary, Model, Tokenizer, embedding_rows
from runner.spec.probes import Bound, DecodingChange, Gate, Result, Suite
from runner.spec.refs import Ref, parse_ref
from runner.spec.stages import AnyStage, Causal, Contrast, Dpo, Pretrain, Sft, Stage
from runner.spec.whole import Recipe

__all__ = [
    "CHAT_TEMPLATES", "DEEPSPEED", "FORMAT_VERSION", "NAME_PATTERN", "RENDEZVOUS_PATTERN", "ROW_TEMPLATES",
    "SLURM_TIME_PATTERN",
    "AnyStage", "Block", "Bound", "Causal", "Contrast", "Data", "DecodingChange", "Dpo", "Ewc", "ExtendVocabulary",
    "Filter", "FromFile", "Gate", "Kl", "Launch", "Lora", "Model", "Name", "Negative", "Part", "Pick", "Pretrain",
    "Recipe", "Ref", "Repeat", "Replay", "Result", "Sample", "Sft", "Slurm", "Split", "Stage", "StopWhen", "Suite",
    "Text", "Tokenizer", "Turn", "embedding_rows", "parse_ref",
]  # fmt: skip
