"""Colours: each container, field, role, pass, limiter and component keeps its own.

The sets are Paul Tol's (bright, muted, vibrant, medium contrast), made to be told apart by
colour-blind readers: https://personal.sron.nl/~pault/
"""

from __future__ import annotations

FIELDS = {
    "sign": "#ccbb44",
    "exponent": "#ee6677",
    "mantissa": "#4477aa",
    "metadata": "#aa3377",
    "padding": "#bbbbbb",
    "index": "#222222",
}
ROLES = {
    "weight": "#332288",
    "activation": "#ddcc77",
    "gradient": "#44aa99",
    "optimizer": "#882255",
    "other": "#cc6677",
    "unknown": "#88ccee",
}
PASSES = {
    "forward": "#0077bb",
    "input_gradient": "#ee7733",
    "weight_gradient": "#33bbee",
    "update": "#cc3311",
    "none": "#bbbbbb",
}
LIMITERS = {
    "dram": "#6699cc",
    "compute": "#eecc66",
    "decoder": "#994455",
    "encoder": "#ee99aa",
    "metadata": "#004488",
    "dependency": "#997700",
}
ENERGY = {
    "DRAM activate": "#08306b",
    "DRAM read": "#2171b5",
    "DRAM write": "#6baed6",
    "DRAM refresh": "#9ecae1",
    "DRAM standby": "#c6dbef",
    "DRAM interface": "#9d94cc",
    "codec": "#ee7733",
    "on-chip memory": "#009988",
    "compute": "#bbbbbb",
}
CONTAINERS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999999",
              "#222222")  # fmt: skip
LINES = ("-", "--", ":")


def container_colour(number: int) -> str:
    """Return the colour of the container at this place of the comparison."""
    return CONTAINERS[number % len(CONTAINERS)]


def container_line(number: int) -> str:
    """Return its line style; it differs where colours repeat."""
    return LINES[number // len(CONTAINERS) % len(LINES)]
