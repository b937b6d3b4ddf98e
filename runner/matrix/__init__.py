"""`matrix:`: the variants of a recipe run as siblings, share the stages they have in common, and end in one table."""

from runner.matrix.planning import MatrixPlan, make_plans
from runner.matrix.records import Cell, Row, Table, compare, read
from runner.matrix.running import run
from runner.matrix.screen import plan_screen, table_screen

__all__ = [
    "Cell", "MatrixPlan", "Row", "Table", "compare", "make_plans", "plan_screen", "read", "run", "table_screen",
]  # fmt: skip
