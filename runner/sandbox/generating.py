"""Python for a template, as jinja2 writes it, with a charge at each place where the template can grow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame

_OPERATORS = {
    "eq": "==", "ne": "!=", "gt": ">", "gteq": ">=", "lt": "<", "lteq": "<=", "in": "in", "notin": "not in",
}  # fmt: skip


class Generator(CodeGenerator):
    """Writes calls of `charge`, `looked`, `made` and `joined` of the environment."""

    def visit_For(self, node: nodes.For, frame: Frame) -> None:  # noqa: N802
        """A loop: a charge for each turn, and for each that its condition leaves out."""
        turn = nodes.EnvironmentAttribute("charge(0)")  # written as `environment.charge(0)`, which is true
        node.body.insert(0, nodes.ExprStmt(turn).set_lineno(node.lineno))
        if node.test is not None:
            node.test = nodes.And(turn, node.test)
        node.set_environment(self.environment)
        super().visit_For(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        """`a ~ b`."""
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        """`a[1:]` copies; `a[1]` does not."""
        self._charged("made", node, frame, super().visit_Getitem, isinstance(node.arg, nodes.Slice))

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802
        """`[a, a]`, which doubles `a` wherever it is looked into."""
        self._charged("looked", node, frame, super().visit_List, bool(node.items))

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        """`(a, a)`, where it is no target."""
        self._charged("looked", node, frame, super().visit_Tuple, bool(node.items) and node.ctx == "load")

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        """`{"x": a, "y": a}`."""
        self._charged("looked", node, frame, super().visit_Dict, bool(node.items))

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802
        """A comparison looks into both sides."""
        self.write("(")
        self._operand(node.expr, frame)
        for operand in node.ops:
            self.visit(operand, frame)
        self.write(")")

    def visit_Operand(self, node: nodes.Operand, frame: Frame) -> None:  # noqa: N802
        """The right side of a comparison, with its operator."""
        self.write(f" {_OPERATORS[node.op]} ")
        self._operand(node.expr, frame)

    def _operand(self, node: nodes.Expr, frame: Frame) -> None:
        self._charged("looked", node, frame, self.visit, not isinstance(node, (nodes.Const, nodes.List, nodes.Tuple)))

    def _charged(self, how: str, node: Any, frame: Frame, visit: Callable[..., Any], is_charged: bool) -> None:
        if is_charged:
            self.write(f"environment.{how}(")
        visit(node, frame)
        if is_charged:
            self.write(")")
