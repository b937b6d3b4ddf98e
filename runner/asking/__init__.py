"""What a probe file says: the decorator `probe`, and the records `Case` and `Reply` its functions receive.

No pytest and no torch here: a probe file can be imported and its functions called by anyone.
"""

from runner.asking.declaring import declared, misdeclared, probe
from runner.asking.identity import ascii_id, case_id, suite_key
from runner.asking.records import Case, Decoding, Probe, Reply, StopReason, decoding_fault, row_of, whole_column
from runner.asking.thinking import split_thinking

__all__ = [
    "Case",
    "Decoding",
    "Probe",
    "Reply",
    "StopReason",
    "ascii_id",
    "case_id",
    "declared",
    "decoding_fault",
    "misdeclared",
    "probe",
    "row_of",
    "split_thinking",
    "suite_key",
    "whole_column",
]
