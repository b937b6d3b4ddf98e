"""Before a stage trains: data sets, tokenizer and splits, the plan with its numbers, and the job of each stage."""

from runner.gpus import visible_gpus
from runner.preparation.looked import HostedLook, Look
from runner.preparation.missing import check_here
from runner.preparation.planning import elsewhere, make_plan
from runner.preparation.prepared import Prepared
from runner.preparation.stage_jobs import inputs_of, new_job, relaid, requests_of, start_of, states
from runner.preparation.writing import recipe_digest, run_record, write_data

__all__ = [
    "HostedLook", "Look", "Prepared", "check_here", "elsewhere", "inputs_of", "make_plan", "new_job",
    "recipe_digest", "relaid", "requests_of", "run_record", "start_of", "states", "visible_gpus", "write_data",
]  # fmt: skip
