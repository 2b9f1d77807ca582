"""Small safe expressions over recorded numbers, such as `abs(ch05.prior_kl_third - 9.70e-6) < 1e-8`."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from hjbridge.ledger.results import Result

NAME = re.compile(r"ch\d\d\.[a-z][a-z0-9_]*(?:@full)?")
Number = int | float
BINARY: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}  # fmt: skip
COMPARE: dict[type[ast.cmpop], tuple[str, Callable[[Number, Number], bool]]] = {
    ast.Lt: ("<", operator.lt), ast.LtE: ("<=", operator.le), ast.Gt: (">", operator.gt), ast.GtE: (">=", operator.ge),
    ast.Eq: ("==", operator.eq), ast.NotEq: ("!=", operator.ne),
}  # fmt: skip
FUNCTIONS: dict[str, Callable[..., Number]] = {
    "abs": abs, "min": min, "max": max, "log": math.log, "exp": math.exp, "sqrt": math.sqrt,
}  # fmt: skip
ATTRIBUTES = ("stderr", "reference", "tolerance", "within")


@dataclass
class Outcome:
    """Whether a rule holds, and for each comparison that does not: what was expected and what came."""

    holds: bool
    misses: list[str] = field(default_factory=list)


def names(expression: str) -> list[str]:
    """Result ids in an expression, in their order, each once."""
    return list(dict.fromkeys(NAME.findall(expression)))


def evaluate(expression: str, lookup: Callable[[str], Result]) -> Outcome:
    """Evaluate a rule.

    Args:
        expression: numbers, result ids, + - * / **, comparisons, and, or, not, the functions abs, min, max, log, exp,
            sqrt of numbers, and stderr, reference, tolerance, within of one result id.
        lookup: gives the result of an id; its errors pass through.
    Returns: whether it holds; an arithmetic error, such as a logarithm of -1, counts as a miss.
    Raises: ValueError that shows the expression if it holds anything else.
    """
    ids = names(expression)
    index = {id: f"_{i}" for i, id in enumerate(ids)}
    results = {f"_{i}": lookup(id) for i, id in enumerate(ids)}
    try:
        tree = ast.parse(NAME.sub(lambda match: index[match[0]], expression), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"rule {expression!r} is no expression: {error.msg}") from error
    walker = _Walker(expression, results, {f"_{i}": id for i, id in enumerate(ids)})
    try:
        return Outcome(bool(walker.value(tree)), walker.misses)
    except (ArithmeticError, TypeError) as error:  # a division by zero, or a complex power
        return Outcome(False, [f"{expression}: {error}"])


@dataclass
class _Walker:
    expression: str
    results: dict[str, Result]
    ids: dict[str, str]
    misses: list[str] = field(default_factory=list)

    def value(self, node: ast.expr) -> Number:
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return node.value
        if isinstance(node, ast.Name) and node.id in self.results:
            return self.results[node.id].value
        if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
            return BINARY[type(node.op)](self.value(node.left), self.value(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd, ast.Not)):
            inner = self.value(node.operand)
            return (not inner) if isinstance(node.op, ast.Not) else inner if isinstance(node.op, ast.UAdd) else -inner
        if isinstance(node, ast.BoolOp):
            values = [bool(self.value(part)) for part in node.values]
            return all(values) if isinstance(node.op, ast.And) else any(values)
        if isinstance(node, ast.Compare) and all(type(op) in COMPARE for op in node.ops):
            return self.compare(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return self.call(node.func.id, node.args)
        text = self.source(node)
        raise ValueError(f"rule {self.expression!r} may hold numbers, ids, arithmetic, comparisons; got {text!r}")

    def call(self, name: str, arguments: list[ast.expr]) -> Number:
        if name in FUNCTIONS:
            values = [self.value(argument) for argument in arguments]
            try:
                return FUNCTIONS[name](*values)
            except ValueError as error:  # the logarithm or the root of a number that has none
                told = ", ".join(f"{value:.10g}" for value in values)
                raise ArithmeticError(f"{name}({told}) is not defined ({error})") from error
        first = arguments[0] if len(arguments) == 1 else None
        if name not in ATTRIBUTES or not isinstance(first, ast.Name) or first.id not in self.results:
            known = ", ".join([*FUNCTIONS, *ATTRIBUTES])
            raise ValueError(f"rule {self.expression!r}: functions are {known} (the last four of one id), got {name!r}")
        found = getattr(self.results[first.id], name)
        if found is None:
            raise ValueError(f"rule {self.expression!r}: {self.ids[first.id]} was recorded without a {name}")
        if name == "within" and not found:
            result = self.results[first.id]
            expected = f"{result.reference:.10g} ± {result.tolerance:g}"
            self.misses.append(f"{result.id}: expected {expected}, got {result.value:.10g}")
        return bool(found) if name == "within" else float(found)

    def compare(self, node: ast.Compare) -> bool:
        left, holds = node.left, True
        for op, right in zip(node.ops, node.comparators, strict=True):
            symbol, test = COMPARE[type(op)]
            a, b = self.value(left), self.value(right)
            if not test(a, b):
                holds = False
                self.misses.append(self.miss(left, symbol, b, a))
            left = right
        return holds

    def miss(self, left: ast.expr, symbol: str, bound: Number, value: Number) -> str:
        """What was expected; `abs(a - b) < c` is told as an interval."""
        if isinstance(left, ast.Call) and self.source(left.func) == "abs" and symbol in ("<", "<="):
            inner = left.args[0]
            if isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Sub):
                centre, got = self.value(inner.right), self.value(inner.left)
                interval = f"{centre - bound:.10g} to {centre + bound:.10g}"
                return f"{self.source(inner.left)}: expected {interval}, got {got:.10g}"
        return f"{self.source(left)}: expected {symbol} {bound:.10g}, got {value:.10g}"

    def source(self, node: ast.expr) -> str:
        text = ast.unparse(node)
        return re.sub(r"\b_\d+\b", lambda match: self.ids.get(match[0], match[0]), text)
