"""The shortcut of the DRAM engine: a schedule that repeats is not worked out again.

While all requests hit open rows and come in a regular pattern, the channel soon does the same
again and again. `look` stops the engine now and then and compares the channel's state with a
state that it kept. If the two are the same but for a shift, of times by `C` cycles and of
requests by `p`, and if the requests that come repeat those between the two states, then so
does everything that happens, since the engine's rules know no absolute time: the state after
`k` more periods is the state now with times shifted by `k C`. `_advance` writes that state.
What could break this is looked at:

- A request that waits has one in its place that came `p` later, or it waits in both states
  and is older than all of the former, then it remains so.
- A time is shifted by `C`, or it stayed where it is and lay in the past at the first state
  already: then nothing moved it, and it makes no difference whether it is read, because all
  rules take the later of it and the clock. This needs distances that are not negative.
- Counts that are compared with a bound stay on their side of it.
- No row is opened or closed and nothing is refreshed in between, nor until the new state: no
  time that the engine compares with the next refresh reaches it.
- When a request came is asked for its latency alone, so those times may differ. The sum of
  latencies less that of the times at which the waiting reads came grows by the same amount
  in every period: a period's reads end and come `C` later than those of the period before.
- No request is merged with another or answered from a queued write: each request of the
  period got an age of its own, and where it matters, no request that comes has the address
  of one that could still wait.

Everything of the state that is not named here has to be exactly the same, so what is added
to it later makes the shortcut rarer, not wrong. Where a log is kept, or rows are closed or
ranks sent to sleep after a time, it is not taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sfpsim.hardware.dram import engine as e

FAR = e.FAR

# Header of the kept state.
H_STAGE = 0
H_PERIOD = 1  # of the requests: every request is as the one `H_PERIOD` before, but for its column
H_END = 2  # first request that is not
H_BASE = 3  # requests taken in the kept state
H_STEP = 4  # requests from one comparison to the next
H_LEFT = 5  # comparisons before a newer state is kept
H_SPAN = 6  # states kept since the pattern was found
H_IDLE = 7  # requests until requests are next looked at
H_QUEUED = 8  # requests of the kept state
H_LEFTOUT = 12  # requests left out so far (9 to 11: where a walk over the queues is)
H_STAYED = 13  # age of the youngest request that waits in both states
H_FOLLOWED = 14  # of the kept state's oldest that another one took the place of
HEADER = 16
SEARCH, SETTLE, COMPARE = 0, 1, 2

LONGEST_PATTERN = 32  # periods of requests that are looked for
SHORTEST_RUN = 96  # requests that a pattern must hold for
LONGEST_SPAN = 16  # comparisons with the same kept state, at most
SAME_SPAN = 4  # states kept before each is compared twice as often
LEAST_STEP = 8
IDLE, LONGEST_IDLE = 64, 256

# What may differ between two states that are a period apart.
EXACT, TIME, COUNT, FREE = 0, 1, 2, 3


def _rules(columns: int, **kinds: list[int]) -> NDArray[np.int64]:
    found = np.zeros(columns, np.int64)
    for kind, members in kinds.items():
        found[members] = {"time": TIME, "count": COUNT, "free": FREE}[kind]
    return found


# Of a channel. Free: compared apart, or follows from what is compared.
ST_RULES = _rules(
    e.ST_COLUMNS,
    time=[e.ST_CLOCK, e.ST_ROWBUS, e.ST_COLBUS, e.ST_BESTAT, e.ST_ACCEPTED, e.ST_LAST],
    count=[e.ST_AGE, e.ST_RD, e.ST_WR, e.ST_REPLIES, e.ST_NEXTIN, e.ST_SERVED],
    free=[e.ST_BEST, e.ST_WHICH, e.ST_LOG, e.ST_LATENCY],
)
# Of a bank. The queues are compared request by request; the other columns that name requests,
# and places in a bank's queue, follow from them and the open row.
BANK_RULES = _rules(
    e.BANK_COLUMNS,
    time=[e.B_ACT, e.B_LAST],
    count=[e.B_HITS, e.B_PASSED],
    free=[
        *range(e.B_HEAD, e.B_HEAD + 3), *range(e.B_TAIL, e.B_TAIL + 3),
        e.B_HIT, e.B_HIT + 1, e.B_MISS, e.B_MISS + 1, e.B_ACTIVE,
    ],
)  # fmt: skip
HITS_MATTER = 4  # columns since the activate, beyond which more make no difference

# A request of the kept state.
K_PLACE, K_ROW, K_WRITE, K_AT, K_AGE, K_MANY = range(6)
KEPT_COLUMNS = 6

# What an address can be compared with on its way in.
FORWARDING = 0  # reads with queued writes
MERGING_WRITES = 1  # reads and writes with queued writes
MERGING = 2  # with all


def kept_places(st: Any, bk: Any, tm: Any, rk: Any, rq: Any) -> NDArray[np.int64]:
    """Return room for a kept state of a channel with these arrays."""
    sizes = HEADER + st.size + bk.size + tm.size + rk.size + KEPT_COLUMNS * rq.shape[0]
    return np.zeros(sizes, np.int64)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _bank_mask(tim: Any) -> int:
    """The bits of an access number that row and bank depend on."""
    mask = 0
    for which in (e.M_ROW, e.M_RANK, e.M_GROUP, e.M_BANK):
        at = e.T_MAP + 6 * which
        mask |= tim[at + 1] << tim[at]
        mask |= tim[at + 4] << tim[at + 3]
    return mask


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _run_end(first: int, period: int, mask: int, address: Any, is_write: Any, arrival: Any) -> int:
    """The first request, from `first` + `period` on, that does not follow the pattern.

    It does where it goes to the row and bank of the one `period` before, is of its kind, and
    comes as much later as the first ones do.
    """
    total = address.shape[0]
    timed = arrival.shape[0] > 0
    start = first + period
    if start >= total:
        return start
    step = np.int64(0)
    if timed:
        step = np.int64(arrival[start]) - np.int64(arrival[first])
    while start < total:
        stop = min(start + 64, total)
        new, old = address[start:stop], address[start - period : stop - period]
        kind, before = is_write[start:stop], is_write[start - period : stop - period]
        bad = np.int64(0)
        for i in range(new.shape[0]):
            bad |= np.int64(new[i] ^ old[i]) & mask
        for i in range(kind.shape[0]):
            bad |= np.int64(kind[i] ^ before[i])
        if timed:
            late, early = arrival[start:stop], arrival[start - period : stop - period]
            for i in range(late.shape[0]):
                bad |= np.int64(late[i]) - np.int64(early[i]) - step
        if bad:
            break
        start = stop
    for i in range(start, min(start + 64, total)):
        if np.int64(address[i] ^ address[i - period]) & mask or is_write[i] != is_write[i - period]:
            return i
        if timed and np.int64(arrival[i]) - np.int64(arrival[i - period]) != step:
            return i
    return total


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _find_run(n: int, address: Any, is_write: Any, arrival: Any, tim: Any, kept: Any) -> bool:
    """Find a pattern that the requests from `n` on follow for a while."""
    mask = _bank_mask(tim) << tim[e.T_SHIFT]
    total = address.shape[0]
    for period in range(1, LONGEST_PATTERN + 1):
        if n + period + SHORTEST_RUN > total:
            return False
        if np.int64(address[n] ^ address[n + period]) & mask:
            continue
        end = _run_end(n, period, mask, address, is_write, arrival)
        if end - n >= SHORTEST_RUN:
            kept[H_PERIOD], kept[H_END] = period, end
            return True
    return False


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _keep_request(n: int, place: int, request: int, rq: Any, kept: Any) -> None:
    at = kept.shape[0] - (n + 1) * KEPT_COLUMNS
    kept[at + K_PLACE], kept[at + K_ROW] = place, rq[request, e.Q_ROW]
    kept[at + K_WRITE], kept[at + K_AT] = rq[request, e.Q_WRITE], rq[request, e.Q_AT]
    kept[at + K_AGE], kept[at + K_MANY] = rq[request, e.Q_AGE], rq[request, e.Q_MANY]


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _same_request(n: int, place: int, request: int, period: int, rq: Any, kept: Any) -> bool:
    """Whether `request` is the kept one number `n` of that place, or takes its place.

    Notes the youngest of those that stayed and the oldest of those that were followed.
    """
    at = kept.shape[0] - (n + 1) * KEPT_COLUMNS
    if (
        n >= kept[H_QUEUED]
        or kept[at + K_PLACE] != place
        or kept[at + K_ROW] != rq[request, e.Q_ROW]
        or kept[at + K_WRITE] != rq[request, e.Q_WRITE]
        or kept[at + K_MANY] > 1
        or rq[request, e.Q_MANY] > 1
    ):
        return False
    age = kept[at + K_AGE]
    if age == rq[request, e.Q_AGE]:
        kept[H_STAYED] = max(kept[H_STAYED], age)
        return True
    kept[H_FOLLOWED] = min(kept[H_FOLLOWED], age)
    return bool(age + period == rq[request, e.Q_AGE])


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _next_queued(walk: Any, bk: Any, rq: Any) -> int:
    """The next request of a walk over all that wait: bank by bank, queue by queue; -1: end.

    `walk`: bank, queue (a chain; 3: the one that the row was opened for), request.
    """
    while walk[0] < bk.shape[0]:
        b, queue, at = walk[0], walk[1], walk[2]
        if queue <= e.OWN:
            request = bk[b, e.B_HEAD + queue] if at == -1 else rq[at, e.Q_NEXT]
            if request >= 0:
                walk[2] = request
                return request
        elif at == -1 and bk[b, e.B_ACTIVE] >= 0:
            walk[2] = 0
            return bk[b, e.B_ACTIVE]
        walk[1], walk[2] = queue + 1, -1
        if queue == 3:
            walk[0], walk[1] = b + 1, 0
    return -1


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _copy(at: int, part: Any, kept: Any) -> int:
    """Copy an array to place `at`; returns the place behind it."""
    target = kept[at : at + part.shape[0]]
    for i in range(part.shape[0]):
        target[i] = part[i]
    return at + part.shape[0]


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _keep(n: int, st: Any, bk: Any, tm: Any, rk: Any, rq: Any, kept: Any) -> None:
    """Keep the state after `n` requests."""
    kept[H_BASE] = n
    at = HEADER
    for part in (bk, tm, rk):
        at = _copy(at, part.reshape(part.size), kept)
    _copy(at, st, kept)
    walk = kept[H_QUEUED + 1 : H_QUEUED + 4]
    walk[0], walk[1], walk[2] = 0, 0, -1
    count = 0
    request = _next_queued(walk, bk, rq)
    while request >= 0:
        _keep_request(count, walk[0] << 2 | walk[1], request, rq, kept)
        count += 1
        request = _next_queued(walk, bk, rq)
    kept[H_QUEUED] = count


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _moved(before: int, now: int, cycles: int, clock: int) -> bool:
    """Whether a time is shifted by `cycles`, or lay before `clock` and stayed."""
    return now - before == cycles or (now == before and (before < clock or before >= FAR))


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _same_channel(period: int, old: Any, st: Any, tim: Any) -> bool:
    cycles, clock = st[e.ST_CLOCK] - old[e.ST_CLOCK], old[e.ST_CLOCK]
    if cycles <= 0 or st[e.ST_AGE] - old[e.ST_AGE] != period:
        return False
    chosen = st[e.ST_VALID] != 0
    if chosen and st[e.ST_BEST] != old[e.ST_BEST]:
        return False
    for i in range(e.ST_COLUMNS):
        rule = ST_RULES[i]
        if rule == EXACT and st[i] != old[i]:
            return False
        if rule == TIME and not _moved(old[i], st[i], cycles, clock):
            return False
    more = st[e.ST_SERVED] - old[e.ST_SERVED]
    columns = st[e.ST_RD] + st[e.ST_WR] - old[e.ST_RD] - old[e.ST_WR]
    return bool(more == 0 or (more == columns and old[e.ST_SERVED] >= tim[e.T_TURN]))


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _same_banks(cycles: int, clock: int, old: Any, bk: Any, tim: Any) -> bool:
    at = 0
    for b in range(bk.shape[0]):
        for i in range(e.BANK_COLUMNS):
            rule = BANK_RULES[i]
            if rule == EXACT and bk[b, i] != old[at + i]:
                return False
            if rule == TIME and not _moved(old[at + i], bk[b, i], cycles, clock):
                return False
        hits = old[at + e.B_HITS]
        if bk[b, e.B_HITS] != hits and hits < HITS_MATTER:
            return False
        at += e.BANK_COLUMNS
    return True


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _same_times(period: int, cycles: int, clock: int, old: Any, tm: Any) -> bool:
    banks = tm.shape[1]
    same = True
    for row in range(e.WANT_ACT):
        for b in range(banks):
            same &= _moved(old[row * banks + b], tm[row, b], cycles, clock)
    for row in range(e.WANT_ACT, e.KEYS):
        for b in range(banks):
            same &= old[row * banks + b] == tm[row, b]
    for row in range(e.KEYS, e.TM_ROWS):  # ages
        for b in range(banks):
            more = tm[row, b] - old[row * banks + b]
            same &= more == 0 or more == period << e.AGE_SHIFT
    return same


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _is_repeated(n: int, st: Any, bk: Any, tm: Any, rk: Any, rq: Any, tim: Any, kept: Any) -> bool:
    """Whether the state after `n` requests is the kept one, shifted."""
    period = n - kept[H_BASE]
    at = HEADER
    old_bk = kept[at : at + bk.size]
    at += bk.size
    old_tm = kept[at : at + tm.size]
    at += tm.size
    old_rk = kept[at : at + rk.size]
    at += rk.size
    old = kept[at : at + st.shape[0]]
    if not _same_channel(period, old, st, tim):
        return False
    clock = old[e.ST_CLOCK]
    cycles = st[e.ST_CLOCK] - clock
    if not _same_times(period, cycles, clock, old_tm, tm):
        return False
    if not _same_banks(cycles, clock, old_bk, bk, tim):
        return False
    flat = rk.reshape(rk.size)
    for i in range(flat.shape[0]):
        if flat[i] != old_rk[i]:
            return False
    walk = kept[H_QUEUED + 1 : H_QUEUED + 4]
    walk[0], walk[1], walk[2] = 0, 0, -1
    kept[H_STAYED], kept[H_FOLLOWED] = -1, FAR
    count = 0
    request = _next_queued(walk, bk, rq)
    while request >= 0:
        if not _same_request(count, walk[0] << 2 | walk[1], request, period, rq, kept):
            return False
        count += 1
        request = _next_queued(walk, bk, rq)
    return bool(count == kept[H_QUEUED] and kept[H_STAYED] < kept[H_FOLLOWED])


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _meets(first: int, end: int, number: int, shift: int, address: Any) -> bool:
    """Whether a request from `first` to before `end` is of access `number`."""
    part = address[max(first, 0) : end]
    found = False
    for i in range(part.shape[0]):
        found |= np.int64(part[i]) >> shift == number
    return found


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _first_meeting(first: int, end: int, number: int, shift: int, address: Any) -> int:
    """The first request from `first` on that is of access `number`; `end`: none."""
    while first < end:
        if _meets(first, min(first + 64, end), number, shift, address):
            while np.int64(address[first]) >> shift != number:
                first += 1
            return first
        first += 64
    return end


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _distinct_end(
    n: int, end: int, window: int, age: int, rq: Any, bk: Any, address: Any, tim: Any,
    kept: Any,
) -> int:  # fmt: skip
    """Up to where no request, from `n` on, is of an access that one of `window` before is of.

    Requests that wait count as such; `age` is the next one's. Two requests that are both a
    fixed number of accesses beyond those a period before are as far apart as those; so only
    requests that are not, and the first period, are compared with their neighbours.
    """
    shift, period = tim[e.T_SHIFT], kept[H_PERIOD]
    low, high = FAR, np.int64(-1)
    near = min(n + window, end)
    for i in range(n, near):
        number = np.int64(address[i]) >> shift
        low, high = min(low, number), max(high, number)
    walk = kept[H_QUEUED + 1 : H_QUEUED + 4]
    walk[0], walk[1], walk[2] = 0, 0, -1
    request = _next_queued(walk, bk, rq)
    while request >= 0:
        number = rq[request, e.Q_KEY]
        if rq[request, e.Q_AGE] <= kept[H_STAYED]:
            end = min(end, _first_meeting(n, end, number, shift, address))
        last = n + window - (age - rq[request, e.Q_AGE])  # that it could still wait for
        if low <= number <= high and _meets(n, min(last + 1, near), number, shift, address):
            return n
        request = _next_queued(walk, bk, rq)
    stride = (np.int64(address[n]) >> shift) - (np.int64(address[n - period]) >> shift)
    budget = 4 * period + 64
    i = n
    while i < end:
        if i >= n + period:  # to the next that is not regular
            stop = min(i + 64, end)
            new, old = address[i:stop], address[i - period : stop - period]
            bad = np.int64(0)
            for j in range(new.shape[0]):
                bad |= (np.int64(new[j]) >> shift) - (np.int64(old[j]) >> shift) - stride
            if not bad:
                budget += 16
                i = stop
                continue
            while (np.int64(address[i]) >> shift) - (
                np.int64(address[i - period]) >> shift
            ) == stride:
                i += 1
        number = np.int64(address[i]) >> shift
        budget -= 1
        if (
            budget < 0
            or _meets(max(n, i - window), i, number, shift, address)
            or _meets(i + 1, min(i + 1 + window, end), number, shift, address)
        ):
            return i
        i += 1
    return end


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _periods(
    n: int, lookup: int, address: Any, is_write: Any, arrival: Any, st: Any, bk: Any, tm: Any,
    rq: Any, tim: Any, kept: Any,
) -> int:  # fmt: skip
    """How many periods can be left out; 0: none."""
    period = n - kept[H_BASE]
    at = kept.shape[0] - KEPT_COLUMNS * rq.shape[0] - st.shape[0]
    old = kept[at : at + st.shape[0]]
    clock = st[e.ST_CLOCK]
    cycles = clock - old[e.ST_CLOCK]
    if arrival.shape[0]:
        first, pattern = kept[H_BASE], kept[H_PERIOD]
        step = np.int64(arrival[first + pattern]) - np.int64(arrival[first])
        step *= period // pattern
        if step != cycles and (step > cycles or np.int64(arrival[n - 1]) + 1 >= old[e.ST_CLOCK]):
            return 0
    latest = max(clock, st[e.ST_ROWBUS], st[e.ST_COLBUS])
    if st[e.ST_BESTAT] < FAR:
        latest = max(latest, st[e.ST_BESTAT])
    for row in range(e.WANT_ACT):
        for b in range(tm.shape[1]):
            latest = max(latest, tm[row, b])
    count = min((kept[H_END] - n) // period, (st[e.ST_DUE] - 1 - latest) // cycles)
    at = HEADER
    for b in range(bk.shape[0]):
        more = bk[b, e.B_PASSED] - kept[at + e.B_PASSED]
        if more and kept[at + e.B_PASSED] < tim[e.T_CAP]:
            count = min(count, (tim[e.T_CAP] - 1 - bk[b, e.B_PASSED]) // more)
        at += e.BANK_COLUMNS
    oldest = st[e.ST_AGE]
    walk = kept[H_QUEUED + 1 : H_QUEUED + 4]
    walk[0], walk[1], walk[2] = 0, 0, -1
    writes = reads = waiting = False
    request = _next_queued(walk, bk, rq)
    while request >= 0:
        if rq[request, e.Q_AGE] > kept[H_STAYED]:
            oldest = min(oldest, rq[request, e.Q_AGE])
        writes |= rq[request, e.Q_WRITE] == 1
        waiting |= rq[request, e.Q_WRITE] == 0
        request = _next_queued(walk, bk, rq)
    window = st[e.ST_AGE] - oldest
    if count <= 0 or count * period < window or period > rq.shape[0]:
        return 0
    for i in range(n, n + period):
        writes |= is_write[i] == 1
        reads |= is_write[i] == 0
    if lookup == MERGING and writes and (reads or waiting):
        return 0  # a write waits for a read of its address, which no count tells
    if lookup == MERGING or (writes and (reads or lookup == MERGING_WRITES)):
        end = _distinct_end(
            n, n + count * period, window + period, st[e.ST_AGE], rq, bk, address, tim, kept
        )  # fmt: skip
        count = (end - n) // period
    return count if count * period >= window else 0


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _shift_times(count: int, cycles: int, period: int, bk: Any, tm: Any, kept: Any) -> None:
    """Shift what moved by a period's cycles by those of `count` periods more."""
    far = count * cycles
    at = HEADER
    for b in range(bk.shape[0]):
        for i in range(e.BANK_COLUMNS):
            more = bk[b, i] - kept[at]
            if BANK_RULES[i] == COUNT or (BANK_RULES[i] == TIME and more == cycles):
                bk[b, i] += count * more
            at += 1
    for row in range(e.TM_ROWS):
        for b in range(tm.shape[1]):
            more = tm[row, b] - kept[at]
            if row < e.WANT_ACT and more == cycles:
                tm[row, b] += far
            elif row >= e.KEYS and more == period << e.AGE_SHIFT:
                tm[row, b] += count * more
            at += 1


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _arrivals(age: int, period: int, bk: Any, rq: Any, kept: Any) -> int:
    """Note when the waiting requests of the last period came, by how many came since.

    Returns the sum of the times at which all waiting reads came. `age` is the next request's.
    """
    walk = kept[H_QUEUED + 1 : H_QUEUED + 4]
    walk[0], walk[1], walk[2] = 0, 0, -1
    total = 0
    request = _next_queued(walk, bk, rq)
    while request >= 0:
        if not rq[request, e.Q_WRITE]:
            total += rq[request, e.Q_AT]
        since = age - rq[request, e.Q_AGE]
        if since <= period:
            kept[kept.shape[0] - since * KEPT_COLUMNS + K_AT] = rq[request, e.Q_AT]
        request = _next_queued(walk, bk, rq)
    return total


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def _advance(
    n: int, count: int, lookup: int, address: Any, st: Any, bk: Any, tm: Any, rk: Any, rq: Any,
    ft: Any, tim: Any, kept: Any,
) -> int:  # fmt: skip
    """Write the state after `count` more periods; returns the requests taken by then."""
    at = kept.shape[0] - KEPT_COLUMNS * rq.shape[0] - st.shape[0]
    old = kept[at : at + st.shape[0]]
    cycles = st[e.ST_CLOCK] - old[e.ST_CLOCK]
    period = n - kept[H_BASE]
    _shift_times(count, cycles, period, bk, tm, kept)
    for i in range(e.ST_COLUMNS):
        more = st[i] - old[i]
        if ST_RULES[i] == COUNT or (ST_RULES[i] == TIME and more == cycles):
            st[i] += count * more
    taken = n + count * period
    before = np.int64(0)
    for i in range(kept[H_QUEUED]):
        at = kept.shape[0] - (i + 1) * KEPT_COLUMNS
        if not kept[at + K_WRITE]:
            before += kept[at + K_AT]
    now = _arrivals(st[e.ST_AGE] - count * period, period, bk, rq, kept)
    walk = kept[H_QUEUED + 1 : H_QUEUED + 4]
    walk[0], walk[1], walk[2] = 0, 0, -1
    after = np.int64(0)
    request = _next_queued(walk, bk, rq)
    while request >= 0:
        if rq[request, e.Q_AGE] <= kept[H_STAYED]:
            after += 0 if rq[request, e.Q_WRITE] else rq[request, e.Q_AT]
            request = _next_queued(walk, bk, rq)
            continue
        # It takes the place of the one that is `count` periods older; that came at the time
        # of one of the last period, shifted.
        age = st[e.ST_AGE] - count * period - rq[request, e.Q_AGE]
        periods = (age - 1) // period
        came = kept[kept.shape[0] - (age - periods * period) * KEPT_COLUMNS + K_AT]
        rq[request, e.Q_AT] = came + (count - periods) * cycles
        rq[request, e.Q_AGE] += count * period
        number = taken - (st[e.ST_AGE] - rq[request, e.Q_AGE])
        key = np.int64(address[number]) >> tim[e.T_SHIFT]
        write = rq[request, e.Q_WRITE]
        if walk[1] < 3 and (write or lookup == MERGING):
            ft[write, rq[request, e.Q_KEY] & (e.FILTER - 1)] -= 1
            ft[write, key & (e.FILTER - 1)] += 1
        rq[request, e.Q_KEY] = key
        if not write:
            after += rq[request, e.Q_AT]
        request = _next_queued(walk, bk, rq)
    grown = st[e.ST_LATENCY] - now - old[e.ST_LATENCY] + before
    st[e.ST_LATENCY] += count * grown + after - now
    return taken


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def look(
    lookup: int, address: Any, is_write: Any, arrival: Any, st: Any, bk: Any, tm: Any, rk: Any,
    rq: Any, ft: Any, tim: Any, log: Any, kept: Any,
) -> int:  # fmt: skip
    """See whether the channel repeats itself, and if so, advance it.

    Returns the number of requests after which to look again: all, where the shortcut is out
    of the question.
    """
    n, total = st[e.ST_NEXTIN], address.shape[0]
    sleeps = tim[e.T_POWERDOWN] or tim[e.T_SELF]  # by how long nothing came
    if total < SHORTEST_RUN or log.shape[0] or tim[e.T_TIMEOUT] or sleeps:
        return total
    if n >= kept[H_END]:
        kept[H_STAGE] = SEARCH
    if kept[H_STAGE] == SEARCH:
        if not _find_run(n, address, is_write, arrival, tim, kept):
            kept[H_IDLE] = min(2 * kept[H_IDLE], LONGEST_IDLE)
            return min(n + kept[H_IDLE], total)
        kept[H_IDLE] = IDLE >> 1
        pattern = kept[H_PERIOD]
        kept[H_STEP] = pattern * ((LEAST_STEP + pattern - 1) // pattern)
        kept[H_STAGE] = SETTLE
        older = st[e.ST_READS] + st[e.ST_WRITES] + st[e.ST_QUEUED]
        return min(n + older, kept[H_END])
    if kept[H_STAGE] == SETTLE:
        kept[H_SPAN], kept[H_LEFT] = 0, 1
        kept[H_STAGE] = COMPARE
        _keep(n, st, bk, tm, rk, rq, kept)
        return min(n + kept[H_STEP], kept[H_END])
    if _is_repeated(n, st, bk, tm, rk, rq, tim, kept):
        kept[H_STAGE] = SETTLE
        count = _periods(n, lookup, address, is_write, arrival, st, bk, tm, rq, tim, kept)
        if count:
            kept[H_LEFTOUT] += count * (n - kept[H_BASE])
            n = _advance(n, count, lookup, address, st, bk, tm, rk, rq, ft, tim, kept)
        return min(n + st[e.ST_READS] + st[e.ST_WRITES] + 2 * kept[H_STEP], kept[H_END])
    kept[H_LEFT] -= 1
    if not kept[H_LEFT]:
        kept[H_SPAN] += 1
        kept[H_LEFT] = 1 << kept[H_SPAN] // SAME_SPAN
        if kept[H_LEFT] > LONGEST_SPAN:
            kept[H_STAGE] = SETTLE
            return min(n + 4 * LONGEST_SPAN * kept[H_STEP], kept[H_END])
        _keep(n, st, bk, tm, rk, rq, kept)
    return min(n + kept[H_STEP], kept[H_END])


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy", forceinline=True)
def _begin(kept: Any) -> None:
    kept[H_STAGE], kept[H_END], kept[H_IDLE] = SEARCH, 0, IDLE >> 1


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def run_default(
    address: Any, is_write: Any, arrival: Any, final: bool, st: Any, bk: Any, tm: Any, rk: Any,
    rq: Any, fr: Any, ft: Any, tim: Any, log: Any, kept: Any,
) -> bool:  # fmt: skip
    """As `sfpsim.hardware.dram.engine.run_default`, leaving out what repeats itself."""
    _begin(kept)
    while True:
        stop = look(
            FORWARDING, address, is_write, arrival, st, bk, tm, rk, rq, ft, tim, log, kept
        )  # fmt: skip
        ends = stop == address.shape[0]
        done = e.run_default(
            address[:stop], is_write[:stop], arrival[:stop], final and ends, st, bk, tm, rk, rq, fr,
            ft, tim, log,
        )  # fmt: skip
        if ends:
            return bool(done)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def run_dramsim3(
    address: Any, is_write: Any, arrival: Any, final: bool, st: Any, bk: Any, tm: Any, rk: Any,
    rq: Any, fr: Any, ft: Any, tim: Any, log: Any, kept: Any,
) -> bool:  # fmt: skip
    """As `sfpsim.hardware.dram.engine.run_dramsim3`, leaving out what repeats itself."""
    _begin(kept)
    while True:
        stop = look(
            MERGING, address, is_write, arrival, st, bk, tm, rk, rq, ft, tim, log, kept
        )  # fmt: skip
        ends = stop == address.shape[0]
        done = e.run_dramsim3(
            address[:stop], is_write[:stop], arrival[:stop], final and ends, st, bk, tm, rk, rq, fr,
            ft, tim, log,
        )  # fmt: skip
        if ends:
            return bool(done)


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def run_ramulator(
    address: Any, is_write: Any, arrival: Any, final: bool, st: Any, bk: Any, tm: Any, rk: Any,
    rq: Any, fr: Any, ft: Any, tim: Any, log: Any, kept: Any,
) -> bool:  # fmt: skip
    """As `sfpsim.hardware.dram.engine.run_ramulator`, leaving out what repeats itself."""
    _begin(kept)
    while True:
        stop = look(
            MERGING_WRITES, address, is_write, arrival, st, bk, tm, rk, rq, ft, tim, log, kept
        )  # fmt: skip
        ends = stop == address.shape[0]
        done = e.run_ramulator(
            address[:stop], is_write[:stop], arrival[:stop], final and ends, st, bk, tm, rk, rq, fr,
            ft, tim, log,
        )  # fmt: skip
        if ends:
            return bool(done)
