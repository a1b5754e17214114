"""Costs of windows of any length, from those of a few lengths that were counted."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from fractions import Fraction

from vditrack_export.plan.costs import Cost


def choose_lengths(lengths: Sequence[int]) -> tuple[int, ...]:
    """Return the lengths to be counted, so that all others of these can be interpolated."""
    every = sorted(set(lengths))
    return tuple(every) if len(every) <= 3 else (every[0], every[len(every) // 2], every[-1])


def interpolate(count: Callable[[int], Cost], counted: Sequence[int], length: int) -> Cost:
    """Return the cost of a window of `length` latents.

    All but peak memory are polynomials of second degree in the length, by attention, so that three
    counted lengths give them exactly. Peak memory is the largest of such polynomials, one a step,
    and therefore convex: a line between two counted lengths is an upper bound.

    Args:
        count: Counts the cost of a length.
        counted: Three lengths in rising order; or all that can occur, if they are fewer.
        length: In latents, from the first to the last of those counted.

    """
    if length in counted:
        return count(length)
    costs = [count(known) for known in counted]
    exact = {
        field.name: _parabola(counted, [getattr(cost, field.name) for cost in costs], length)
        for field in fields(Cost)
        if field.name != "peak_bytes"
    }
    after = next(index for index, known in enumerate(counted) if known > length)
    (start, end), (low, high) = counted[after - 1 : after + 1], costs[after - 1 : after + 1]
    share = Fraction(length - start, end - start)
    low_peak, high_peak = low.peak_bytes, high.peak_bytes
    return Cost(**exact, peak_bytes=round(low_peak + share * (high_peak - low_peak)))


def extrapolate(first: Cost, second: Cost, steps: int) -> Cost:
    """Return the first cost and so many times what the second adds.

    Peak memory is the second's, unless each step has a state that is an input of its own.
    """
    differences = {
        field.name: getattr(second, field.name) - getattr(first, field.name)
        for field in fields(Cost)
    }
    exact = {name: getattr(first, name) + steps * more for name, more in differences.items()}
    if not first.ring_bytes:
        exact["peak_bytes"] = second.peak_bytes
    return Cost(**exact)


def _parabola(places: Sequence[int], values: Sequence[int], at: int) -> int:
    """Evaluate the polynomial through given values at another place (Lagrange)."""
    total = Fraction(0)
    for index, value in enumerate(values):
        term = Fraction(value)
        for other, place in enumerate(places):
            if other != index:
                term *= Fraction(at - place, places[index] - place)
        total += term
    return round(total)
