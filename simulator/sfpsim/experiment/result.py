"""The result of a comparison: the structs behind `--json` (a contract; see docs/results.md)."""

from __future__ import annotations

import msgspec

RESULT_SCHEMA = 1


class Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A frozen keyword-only record; unknown keys are errors."""


class DramEnergy(Struct, frozen=True, kw_only=True):
    """DRAM energy by component, pJ; low-power states are None where no rank sleeps."""

    act: float
    rd: float
    wr: float
    ref: float
    active_standby: float
    precharge_standby: float
    active_powerdown: float | None = None
    precharge_powerdown: float | None = None
    self_refresh: float | None = None
    interface: float

    @property
    def total(self) -> float:
        """Sum of the components, pJ."""
        return sum(getattr(self, f) or 0.0 for f in self.__struct_fields__)


class Energy(Struct, frozen=True, kw_only=True):
    """Energy by component, pJ. `level` is low, middle or high (where sources differ)."""

    dram: DramEnergy
    codec: float
    onchip: float
    compute: float
    total: float


class Limits(Struct, frozen=True, kw_only=True):
    """Time that each part alone would need, ns; the largest names the limiter."""

    compute: float
    dram: float
    decoder: float
    encoder: float
    metadata: float
    dependency: float


class LayerResult(Struct, frozen=True, kw_only=True):
    """One pass of one layer in one step."""

    name: str
    pass_: str = msgspec.field(name="pass")
    step: int
    limiter: str
    time_ns: float
    read_bytes: int
    write_bytes: int
    compulsory_bytes: int
    overfetch_bytes: int
    macs: int
    utilisation: float
    scheme: str
    energy_pj: float
    limits_ns: Limits


class TensorResult(Struct, frozen=True, kw_only=True):
    """One stored tensor's bits (extrapolated to the full shape where it was sampled)."""

    name: str
    role: str
    layer: str
    container: str
    values: int
    raw_bits: int
    sign_bits: int
    exponent_bits: int
    mantissa_bits: int
    metadata_bits: int
    padding_bits: int
    index_bits: int
    total_bits: int
    total_bits_se: float
    raw_blocks: int
    max_rel_error: float | None
    sqnr_db: float | None


class RoleResult(Struct, frozen=True, kw_only=True):
    """Bits by field and quality, over the tensors of one role in one container.

    Quality is that of the `held_values` that the trace holds; null as in `Totals`.
    """

    role: str
    container: str
    tensors: int
    values: int
    raw_bits: int
    sign_bits: int
    exponent_bits: int
    mantissa_bits: int
    metadata_bits: int
    padding_bits: int
    index_bits: int
    total_bits: int
    bits_per_value: float | None
    held_values: int
    sqnr_db: float | None
    max_rel_error: float | None
    cosine: float | None
    zeros_made: int
    specials_lost: int
    specials_made: int


class Traffic(Struct, frozen=True, kw_only=True):
    """Bytes moved between chip and memory by pass and role."""

    pass_: str = msgspec.field(name="pass")
    role: str
    read_bytes: int
    write_bytes: int
    compulsory_bytes: int


class LiveBytes(Struct, frozen=True, kw_only=True):
    """Off-chip bytes in use from `time_ns` on (stash and gradients rise and fall)."""

    time_ns: float
    stash_bytes: int
    other_bytes: int


class Band(Struct, frozen=True, kw_only=True):
    """A speed-up (or time) at mapping utilisations 1.0, 0.7 and 0.5."""

    u100: float
    u70: float
    u50: float


class Totals(Struct, frozen=True, kw_only=True):
    """The whole replay under one policy; null where a field does not apply.

    `ratio` is raw_bits / total_bits over the tensors that the policy's container stores;
    `bound` is 1 / (1 - f + f / r), f the share of baseline traffic that is compressed, r
    its ratio. `traffic_ratio` is baseline traffic / this policy's traffic.
    """

    values: int
    raw_bits: int
    sign_bits: int
    exponent_bits: int
    mantissa_bits: int
    metadata_bits: int
    padding_bits: int
    index_bits: int
    total_bits: int
    total_bits_se: float
    ratio: float | None
    raw_blocks: int
    max_rel_error: float | None
    sqnr_db: float | None
    nan_lost: int
    time_ns: float
    time_error_ns: float = 0.0
    simulated_share: float = 1.0
    read_bytes: int
    write_bytes: int
    compulsory_bytes: int
    overfetch_bytes: int
    peak_live_bytes: int
    reserved_bytes: int
    fragmentation: float | None
    channel_imbalance: float | None
    bandwidth_gbps: float | None
    compressed_share: float
    bound: float | None
    traffic_ratio: float | None
    limiter: str | None
    time_band_ns: Band
    break_even_gbps: float | None
    energy_pj: Energy
    energy_low_pj: Energy
    energy_high_pj: Energy


class StepRole(Struct, frozen=True, kw_only=True):
    """Bits of the tensors of one role in one captured step, whatever their container."""

    role: str
    values: int
    raw_bits: int
    total_bits: int


class StepResult(Struct, frozen=True, kw_only=True):
    """One captured step under one policy, as in `Totals`; sums of steps are the totals.

    `energy_pj` is the total by the middle tables.
    """

    step: int
    epoch: int
    values: int
    raw_bits: int
    sign_bits: int
    exponent_bits: int
    mantissa_bits: int
    metadata_bits: int
    padding_bits: int
    index_bits: int
    total_bits: int
    time_ns: float
    read_bytes: int
    write_bytes: int
    bandwidth_gbps: float | None
    energy_pj: float
    roles: list[StepRole]


class ContainerResult(Struct, frozen=True, kw_only=True):
    """Everything about one policy."""

    container: str
    policy: dict[str, str]
    lossless: bool
    totals: Totals
    roles: list[RoleResult]
    traffic: list[Traffic]
    live: list[LiveBytes]
    layers: list[LayerResult]
    tensors: list[TensorResult] | None = None
    steps: list[StepResult] = []


class LayerLengths(Struct, frozen=True, kw_only=True):
    """Mean bits in force over `values` values of a layer's weights or activations in a step.

    Null where no length of the kind is in force.
    """

    step: int
    epoch: int
    layer: str
    role: str
    values: int
    mantissa_bits: float | None
    exponent_bits: float | None


class TraceInfo(Struct, frozen=True, kw_only=True):
    """What was replayed."""

    path: str
    steps: int
    tensors: int
    values: int
    sampled: bool


class MachineInfo(Struct, frozen=True, kw_only=True):
    """On what it was replayed; `hash` is that of the whole machine description."""

    name: str
    hash: str
    memory_detail: str
    peak_bandwidth_gbps: float
    memory_note: str


class Comparison(Struct, frozen=True, kw_only=True):
    """The result of `compare` and `replay`: what `--json` writes."""

    schema: int = RESULT_SCHEMA
    sfpsim: str
    config_hash: str
    trace: TraceInfo
    machine: MachineInfo
    exponents: dict[str, list[int]]
    containers: list[ContainerResult]
    notes: list[str] = []
    lengths: list[LayerLengths] = []
