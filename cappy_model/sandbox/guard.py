"""Check the syntax tree of a template, and route its costly operations through filters that charge for them."""

from collections.abc import Iterator
from typing import Any, NoReturn

from jinja2 import TemplateSyntaxError, nodes
from jinja2.visitor import NodeTransformer

from cappy_model.sandbox.filters import FILTERS, TESTS
from cappy_model.sandbox.values import FUNCTIONS, METHOD_NAMES, MUTATING

SEPARATOR = "|||"
# Replaces the separator in compiled templates, so that `|||` in data is never taken for one. It is a Unicode
# noncharacter, which is not meant for interchange. Callers must reject rows that hold it.
SENTINEL = "\ufdd0"
MAX_DEPTH = 16

_NODES: tuple[type[nodes.Node], ...] = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.NSRef, nodes.Const, nodes.Tuple, nodes.List),
    *(nodes.Dict, nodes.Pair, nodes.Keyword, nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Call, nodes.Getitem),
    *(nodes.Getattr, nodes.Slice, nodes.Concat, nodes.Compare, nodes.Operand, nodes.Mul, nodes.Div, nodes.FloorDiv),
    *(nodes.Add, nodes.Sub, nodes.Mod, nodes.Pow, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos, nodes.For),
    *(nodes.If, nodes.Assign, nodes.AssignBlock, nodes.With),
)
_FUNCTIONS = ("loop", *FUNCTIONS)


class Guard(NodeTransformer):
    """Refuse constructs that are not listed, and route costly ones through the environment's internal filters.

    The names of these filters start with a space, so no template can call them. A refusal is a TemplateSyntaxError with
    the line. Use one guard per template.

    Args:
      loose: whether the separator occurs inside an expression, so that written values are searched for it.
    """

    def __init__(self, *, loose: bool) -> None:
        self.loose = loose
        self.depth = 0
        self.loops: list[int] = []  # sizes of the bodies of the enclosing loops
        self.captures = 0
        self.mutates = False

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        """Refuse a construct that is not listed, and `*` and `**` in any call."""
        if type(node) not in _NODES:
            _refuse(node, f"the construct {type(node).__name__} is not allowed; write the template without it")
        if isinstance(node, nodes.For | nodes.AssignBlock | nodes.With):
            return self._nested(node)
        if isinstance(node, nodes.Call | nodes.Filter | nodes.Test) and (node.dyn_args or node.dyn_kwargs):
            _refuse(node, "* and ** arguments are not allowed; write the arguments out")
        return super().visit(node, *args, **kwargs)

    def _nested(self, node: nodes.Node) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:  # compile time grows fast with the depth
            _refuse(node, f"blocks are nested more than {MAX_DEPTH} deep; nest fewer")
        visited = super().visit(node)
        self.depth -= 1
        return visited

    def visit_Name(self, node: nodes.Name) -> nodes.Node:
        """Refuse `self`."""
        if node.name == "self":
            _refuse(node, "the name self is jinja2's own; rename the column")
        return node

    def visit_Const(self, node: nodes.Const) -> nodes.Node:
        """Refuse a number too large to compute with."""
        if isinstance(node.value, int) and node.value.bit_length() > 64:
            _refuse(node, "a number of more than 64 bits is not allowed")
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        """Refuse a filter that is not listed."""
        if node.name not in FILTERS:
            _refuse(node, f"there is no filter {node.name!r} here; there are: {', '.join(sorted(FILTERS))}")
        return self.generic_visit(node)

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        """Refuse a test that is not listed."""
        if node.name not in TESTS:
            _refuse(node, f"there is no test {node.name!r} here; there are: {', '.join(sorted(TESTS))}")
        return self.generic_visit(node)

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:
        """Refuse attributes that lead into Python's internals."""
        if node.attr.startswith("__"):
            _refuse(node, f"the attribute {node.attr!r} is not allowed: it leads to Python's internals")
        return self.generic_visit(node)

    def visit_Call(self, node: nodes.Call) -> nodes.Node:
        """Route methods and functions through the environment, and refuse those that are not listed.

        A function is called by its name, so that a column of that name remains a variable.
        """
        called = node.node
        if isinstance(called, nodes.Getattr):
            if called.attr not in METHOD_NAMES:
                allowed = ", ".join(sorted(METHOD_NAMES))
                _refuse(node, f"the method {called.attr!r} is not allowed; there are: {allowed}")
            self.mutates |= called.attr in MUTATING
            self.generic_visit(node)
            assert isinstance(node.node, nodes.Getattr)
            return _filter(node, " call", node.node.node, nodes.Const(called.attr), *node.args, kwargs=node.kwargs)
        if not isinstance(called, nodes.Name) or called.name not in _FUNCTIONS:
            _refuse(node, f"only methods and {', '.join(_FUNCTIONS)} can be called")
        self.generic_visit(node)
        if called.name != "loop":
            return _filter(node, " function", nodes.Const(called.name), *node.args, kwargs=node.kwargs)
        # A recursive loop: its body is at most the largest enclosing one.
        node.args = [_filter(node, " loop", arg, nodes.Const(max(self.loops, default=1))) for arg in node.args]
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        """Charge for slices."""
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        bounds = (node.arg.start, node.arg.stop, node.arg.step)
        return _filter(node, " slice", node.node, *(nodes.Const(None) if end is None else end for end in bounds))

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        """Charge for `~`."""
        self.generic_visit(node)
        return _filter(node, " concat", nodes.List(node.nodes, lineno=node.lineno))

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        """Charge for comparisons that can be slow."""
        self.generic_visit(node)
        if not _is_cheap(node):
            node.expr = _filter(node, " weigh", node.expr)
            for operand in node.ops:
                operand.expr = _filter(node, " weigh", operand.expr)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:
        """Check the keys of a dict at render time."""
        self.generic_visit(node)
        node.key = _filter(node, " key", node.key)
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        """Charge for the steps of a loop before it starts."""
        steps = sum(1 for child in (*node.body, node.test) if child for _ in child.find_all(nodes.Node)) + 1
        node.iter = _filter(node, " loop", self.visit(node.iter), nodes.Const(steps))
        node.else_ = [self.visit(child) for child in node.else_]
        self.loops.append(steps)
        node.target = self.visit(node.target)
        node.test = node.test and self.visit(node.test)
        node.body = [self.visit(child) for child in node.body]
        self.loops.pop()
        return node

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:
        """Exempt the text of a `{% set %}` block from truncation."""
        self.captures += 1
        self.generic_visit(node)
        self.captures -= 1
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        """Charge for literal text in loops, and mark the separator."""
        text = sum(len(child.data) for child in node.nodes if isinstance(child, nodes.TemplateData))
        parts = [part for child in node.nodes for part in self._written(child)]
        if text and self.loops:
            # Literal text is free of charge, except in loops, which multiply it.
            parts.insert(0, _filter(node, " text", nodes.Const(text)))
        node.nodes = parts
        return node

    def _written(self, node: nodes.Expr) -> Iterator[nodes.Expr]:
        if not isinstance(node, nodes.TemplateData):
            visited = self.visit(node)
            wrapper = " keep" if self.captures else " watch" if self.loose else None
            yield _filter(node, wrapper, visited) if wrapper else visited
        elif self.captures:
            yield node
        else:
            first, *rest = node.data.split(SENTINEL)
            yield nodes.TemplateData(first, lineno=node.lineno)
            for text in rest:
                yield _filter(node, " separator", nodes.Const(SENTINEL))
                yield nodes.TemplateData(text, lineno=node.lineno)


def _refuse(node: nodes.Node, message: str) -> NoReturn:
    raise TemplateSyntaxError(message, node.lineno or 1)


def _filter(
    at: nodes.Node, name: str, value: nodes.Expr, *args: nodes.Expr, kwargs: list[nodes.Keyword] | None = None
) -> nodes.Filter:
    return nodes.Filter(value, name, list(args), kwargs or [], None, None, lineno=at.lineno)


def _is_cheap(node: nodes.Compare) -> bool:
    """Return whether one side is a number or a short text, so that the comparison is fast whatever the other is."""
    if len(node.ops) != 1:
        return False
    (operand,) = node.ops
    if operand.op in ("in", "notin"):
        return isinstance(operand.expr, nodes.List | nodes.Tuple) and all(map(_is_short, operand.expr.items))
    return _is_short(node.expr) or _is_short(operand.expr)


def _is_short(node: nodes.Expr) -> bool:
    return isinstance(node, nodes.Const) and not (isinstance(node.value, str) and len(node.value) > 100)
