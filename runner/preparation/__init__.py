"""Before a stage trains: data sets, tokenizer and splits, the plan with its numbers, and the job of each stage."""

from runner.preparation.planning import elsewhere, make_plan
from runner.preparation.prepared import Prepared
from runner.preparation.stage_jobs import inputs_of, new_job, requests_of, start_of, states
from runner.preparation.writing import run_record, visible_gpus, write_data

__all__ = [
    "Prepared", "elsewhere", "inputs_of", "make_plan", "new_job", "requests_of", "run_record", "start_of",
    "states", "visible_gpus", "write_data",
]  # fmt: skip
