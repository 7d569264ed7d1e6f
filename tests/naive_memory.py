"""Slow, obvious models of the memory channels, burst by burst and cycle by cycle.

`NaiveChannels` stands in for `sfpsim.hardware.channel.Channels` in `bandwidth` detail: every
unit, FIFO place and burst is a simpy process or event of its own. `naive_controller` steps a
DRAM controller through every clock cycle and decides what is legal by looking back at the
commands that it issued. Neither shares code with the kernels.
"""

from collections import deque

import numpy as np
import simpy

from sfpsim.hardware import kernels as k

DECODE, PLAIN_READ, ENCODE, PLAIN_WRITE = range(4)


class Offer:
    """A burst that a slot wants to move."""

    def __init__(self, env, writes):
        self.writes = writes
        self.taken = env.event()
        self.data = env.event()


class NaiveChannel:
    """The data bus of one channel, which takes the offers of `slots` slots in turn."""

    def __init__(self, env, par, slots):
        self.env, self.par, self.slots = env, par, slots
        self.offers = {}
        self.something = env.event()
        self.turn = 0
        self.reads = self.writes = 0
        self.ends = {False: 0, True: 0}  # of the last read and the last write on the bus
        env.process(self.bus())

    def offer(self, slot, writes):
        offer = self.offers[slot] = Offer(self.env, writes)
        if not self.something.triggered:
            self.something.succeed()
        return offer

    def bus(self):
        while True:
            if not self.offers:
                self.something = self.env.event()
                yield self.something
            for _ in range(4):  # let everything that happens now happen first
                yield self.env.timeout(0)
            order = sorted(self.offers)
            slot = next((s for s in order if s >= self.turn), order[0])
            self.turn = (slot + 1) % self.slots
            kinds = {offer.writes for offer in self.offers.values()}
            kinds |= {writes for writes, end in self.ends.items() if end > self.env.now}
            offer = self.offers.pop(slot)
            cost = self.par[k.P_WRITE_PS if offer.writes else k.P_READ_PS]
            if len(kinds) == 2:
                cost = self.par[k.P_MIXED_PS]
            offer.taken.succeed()
            end = max(int(self.env.now), *self.ends.values()) + int(cost)
            self.ends[offer.writes] = end
            later = end - self.env.now + (0 if offer.writes else int(self.par[k.P_LATENCY_PS]))
            self.env.timeout(later).callbacks.append(lambda _, o=offer: o.data.succeed())
            self.writes += offer.writes
            self.reads += not offer.writes
            yield self.env.timeout(max(0, end - int(self.par[k.P_QUEUE_PS]) - self.env.now))


class NaiveGroup:
    """The slots that share a queue of jobs: those of one channel, or of all (striped)."""

    def __init__(self, env, par, rows, channels, stripe):
        self.env, self.par, self.rows = env, par, rows
        self.channels, self.stripe = channels, stripe
        self.after = {}
        self.queues = [simpy.Store(env) for _ in range(4)]
        number = 0
        for kind in range(4):
            for _ in range(par[k.P_SLOT + kind + 1] - par[k.P_SLOT + kind]):
                env.process(self.slot(number, kind))
                number += 1

    def burst(self, slot, writes, job, column, number):
        """Offer one burst of a stream of `job` and wait until it is taken; returns the offer."""
        address = int(job[column]) + number * (1 << int(self.par[k.P_BURST_SHIFT])) // 8
        where = address // self.stripe % len(self.channels) if self.stripe else 0
        yield self.env.timeout(max(0, self.after.get(slot, 0) - self.env.now))
        offer = self.channels[where].offer(slot, writes)
        yield offer.taken
        self.after[slot] = self.env.now + 1  # one burst at a time, by whichever channel
        return offer

    def slot(self, number, kind):
        work = [self.decode, self.plain_read, self.encode, self.plain_write][kind]
        while True:
            job, done = yield self.queues[kind].get()
            yield from work(number, job, done)

    def plain_read(self, slot, job, done):
        assert not job[k.J_MBURSTS]
        index, data = [], []
        for n in range(job[k.J_IBURSTS]):
            index.append((yield from self.burst(slot, False, job, k.J_IADDR, n)).data)
        if job[k.J_DEPENDENT]:
            yield index[0]
        for n in range(job[k.J_PBURSTS]):
            if n >= self.par[k.P_WINDOW]:  # a place is free once it and those before have come
                yield simpy.AllOf(self.env, data[: n - self.par[k.P_WINDOW] + 1])
            data.append((yield from self.burst(slot, False, job, k.J_PADDR, n)).data)
        data += index
        yield simpy.AllOf(self.env, data)
        done.succeed()

    def plain_write(self, slot, job, done):
        assert not job[k.J_MBURSTS]
        data = []
        for count, column in ((k.J_PBURSTS, k.J_PADDR), (k.J_IBURSTS, k.J_IADDR)):
            for n in range(job[count]):
                data.append((yield from self.burst(slot, True, job, column, n)).data)
        simpy.AllOf(self.env, data).callbacks.append(lambda _: done.succeed())

    def row_bits(self, job):
        for n in range(job[k.J_ROWS]):
            at = job[k.J_ROWBASE] + (job[k.J_ROWSTART] + n) % job[k.J_ROWLEN]
            yield int(self.rows[0][at]), int(self.rows[1][at])

    def edge(self):
        """Wait for the next edge of the codec's clock (none if now is one)."""
        period = int(self.par[k.P_CODEC_PS])
        yield self.env.timeout(-int(self.env.now) % period)

    def decode(self, slot, job, done):
        env = self.env
        fifos = [Fifo(env, self.par[k.P_FIFO]), Fifo(env, self.par[k.P_MFIFO])]
        asked = env.process(self.fetch(slot, job, fifos))
        yield from self.edge()
        bits = [int(job[k.J_PHEAD]), int(job[k.J_MHEAD])]
        most = [job[k.J_PBURSTS], job[k.J_MBURSTS]]
        width = 1 << int(self.par[k.P_BURST_SHIFT])
        for row in self.row_bits(job):
            yield env.timeout(int(self.par[k.P_CODEC_PS]) * int(job[k.J_PACE]))
            for stream in (0, 1):
                bits[stream] += row[stream]
                for n in range(min(-(-bits[stream] // width), most[stream])):
                    if n >= len(fifos[stream].seen):
                        yield from fifos[stream].arrived(n)
                        fifos[stream].seen.append(n)
            yield from self.edge()
            for stream in (0, 1):
                fifos[stream].drain(bits[stream] // width)
        end = env.now
        for stream in (0, 1):
            env.process(drain_rest(fifos[stream], most[stream]))
        yield asked
        env.process(self.last_data(job, fifos, most, asked.value, end, done))

    def last_data(self, job, fifos, most, index, end, done):
        """A block is there when its last row has left the pipeline and all bursts came."""
        for offer in index:
            if not offer.data.processed:
                yield offer.data
        for fifo, count in zip(fifos, most, strict=True):
            for n in range(count):
                yield from fifo.arrived(n)
        yield self.env.timeout(max(0, end + int(job[k.J_LATENCY]) - self.env.now))
        done.succeed()

    def fetch(self, slot, job, fifos):
        """Ask for index, metadata and payload bursts, metadata first while it has room."""
        env, index = self.env, []
        for n in range(job[k.J_IBURSTS]):
            index.append((yield from self.burst(slot, False, job, k.J_IADDR, n)))
        if job[k.J_DEPENDENT]:
            yield index[0].data
        left = [job[k.J_PBURSTS], job[k.J_MBURSTS]]
        while any(left):
            stream = 1 if left[1] and fifos[1].room() else 0
            if not (left[stream] and fifos[stream].room()):
                yield simpy.AnyOf(env, [f.change() for f in fifos])
                continue
            number = fifos[stream].ask()
            column = (k.J_PADDR, k.J_MADDR)[stream]
            offer = yield from self.burst(slot, False, job, column, number)
            offer.data.callbacks.append(
                lambda _, f=fifos[stream], n=number: f.put(n),
            )
            left[stream] -= 1
        return index

    def encode(self, slot, job, done):
        env = self.env
        fifos = [Fifo(env, self.par[k.P_FIFO]), Fifo(env, self.par[k.P_MFIFO])]
        made = env.process(self.rows_to_bursts(job, fifos))
        left = [job[k.J_PBURSTS], job[k.J_MBURSTS]]
        at, data = [0, 0], []
        while any(left):
            stream = 1 if left[1] and at[1] in fifos[1].there else 0
            if not (left[stream] and at[stream] in fifos[stream].there):
                yield simpy.AnyOf(env, [f.change() for f in fifos])
                continue
            column = (k.J_PADDR, k.J_MADDR)[stream]
            offer = yield from self.burst(slot, True, job, column, at[stream])
            data.append(offer.data)
            at[stream] += 1
            fifos[stream].drain(at[stream])
            left[stream] -= 1
        for n in range(job[k.J_IBURSTS]):
            data.append((yield from self.burst(slot, True, job, k.J_IADDR, n)).data)
        yield made
        simpy.AllOf(env, data).callbacks.append(lambda _: done.succeed())

    def rows_to_bursts(self, job, fifos):
        env, latency = self.env, int(job[k.J_LATENCY])
        yield from self.edge()
        yield env.timeout(int(job[k.J_DELAY]) * int(self.par[k.P_CODEC_PS]))
        bits = [int(job[k.J_PHEAD]), int(job[k.J_MHEAD])]
        most = [job[k.J_PBURSTS], job[k.J_MBURSTS]]
        width = 1 << int(self.par[k.P_BURST_SHIFT])

        def fill(stream, count):
            while fifos[stream].asked < count:
                while not fifos[stream].room():
                    yield fifos[stream].change()
                yield from self.edge()
                number = fifos[stream].ask()
                env.timeout(latency).callbacks.append(lambda _, f=fifos[stream], n=number: f.put(n))

        for row in self.row_bits(job):
            yield env.timeout(int(self.par[k.P_CODEC_PS]) * int(job[k.J_PACE]))
            for stream in (0, 1):
                bits[stream] += row[stream]
                yield from fill(stream, min(bits[stream] // width, most[stream]))
        for stream in (0, 1):
            yield from fill(stream, most[stream])


class Fifo:
    """Places of one stream between a unit and the controller."""

    def __init__(self, env, depth):
        self.env, self.depth = env, int(depth)
        self.asked = self.drained = 0
        self.there, self.seen = set(), []
        self.waiting = []

    def room(self):
        return self.asked < self.drained + self.depth

    def ask(self):
        self.asked += 1
        return self.asked - 1

    def change(self):
        event = self.env.event()
        self.waiting.append(event)
        return event

    def tell(self):
        waiting, self.waiting = self.waiting, []
        for event in waiting:
            event.succeed()

    def put(self, number):
        self.there.add(number)
        self.tell()

    def arrived(self, number):
        while number not in self.there:
            yield self.change()

    def drain(self, count):
        if count > self.drained:
            self.drained = count
            self.tell()


def drain_rest(fifo, most):
    """After the last row what comes is padding: its place is free as it comes."""
    for n in range(fifo.drained, most):
        yield from fifo.arrived(n)
        fifo.drain(n + 1)


class NaiveChannels:
    """`Channels` by hand, for `MemoryPath`."""

    def __init__(self, env, machine, par, rows_p, rows_m):
        self.env, self.par = env, par
        slots, rows = int(par[k.P_SLOT + 4]), (rows_p, rows_m)
        self.channels = [NaiveChannel(env, par, slots) for _ in range(machine.memory.channels)]
        stripe = machine.memory.stripe_bytes
        pools = [self.channels] if stripe else [[channel] for channel in self.channels]
        self.groups = [NaiveGroup(env, par, rows, pool, stripe) for pool in pools]

    def submit(self, jobs, group):
        done = []
        for job, where in zip(jobs, group, strict=True):
            if job[k.J_PBURSTS] + job[k.J_MBURSTS] + job[k.J_IBURSTS]:
                event = self.env.event()
                self.groups[where].queues[job[k.J_CLASS]].put((job, event))
                done.append(event)
        return simpy.AllOf(self.env, done)

    def moved_bytes(self):
        return sum(c.reads + c.writes for c in self.channels)

    def jobs_held(self):
        return 0

    def moved_ps(self):
        return np.array([
            c.reads * self.par[k.P_READ_PS] + c.writes * self.par[k.P_WRITE_PS]
            for c in self.channels
        ])  # fmt: skip

    def finish(self):
        return int(self.env.now)

    def counts(self):
        reads = np.array([channel.reads for channel in self.channels])
        writes = np.array([channel.writes for channel in self.channels])
        return reads, writes


class NaiveBank:
    def __init__(self):
        self.row = None
        self.act = self.pre = self.read = self.write_end = -(10**9)
        self.passed = 0


class NaiveSlot:
    """A plain stream: works on one job, a run of bursts, at a time."""

    def __init__(self, is_write):
        self.is_write = is_write
        self.job = None
        self.start = self.free = 0

    def take(self, job):
        self.job, self.start, self.next, self.data = job, self.free, 0, []

    def offers(self, cycle, window):
        if self.job is None or self.next == self.job[1] or cycle < self.start:
            return False
        n = self.next - window
        if self.is_write or n < 0:
            return True
        return None not in self.data[: n + 1] and self.data[n] <= cycle

    def done(self, last):
        """Note the end of the job where every burst is served."""
        if self.next == self.job[1] and None not in self.data:
            self.job, self.free = None, max(last, *self.data) if self.data else last


def naive_controller(device, reads, writes, slots_of_a_kind, window):
    """Step a controller through every cycle until all jobs are served.

    `reads` and `writes` are lists of (first burst, bursts); a kind's slots take its jobs in
    order. Returns the commands as (cycle, name, bank, row) and the last cycle of data.
    """
    d, queues = device, device.controller
    sizes = {
        "ro": d.rows, "ra": d.ranks, "bg": d.bank_groups, "ba": d.banks // d.bank_groups,
        "co": d.row_bytes // d.burst_bytes,
    }  # fmt: skip
    banks = [NaiveBank() for _ in range(d.ranks * d.banks)]
    queued = {False: deque(), True: deque()}
    jobs = {False: deque(reads), True: deque(writes)}
    slots = [NaiveSlot(w) for w in (False, True) for _ in range(slots_of_a_kind)]
    commands, acts, columns = [], [], deque(maxlen=100)
    bus_free, target = 0, 0
    refreshed = [-(10**9)] * d.ranks
    writing, served, turn, last_data, cycle = False, 0, 0, 0, 0
    refresh_due = d.trefi // d.ranks

    def place(burst):
        at = dict.fromkeys(sizes, 0)
        for field in reversed(d.mapping.split()):
            burst, at[field[:2]] = divmod(burst, sizes[field[:2]])
        if "ba^ro" in d.mapping:
            at["ba"] ^= at["ro"] % sizes["ba"]
        return (at["ra"] * sizes["bg"] + at["bg"]) * sizes["ba"] + at["ba"], at["ro"]

    def rank_of(bank):
        return bank // d.banks

    def group_of(bank):
        return bank // sizes["ba"]

    def activate_ok(bank):
        """Look back at the activates of the rank."""
        before = [(t, b) for t, b in acts if rank_of(b) == rank_of(bank)]
        if len(before) >= 4 and cycle < before[-4][0] + d.tfaw:
            return False
        return all(
            cycle >= t + (d.trrd_l if group_of(b) == group_of(bank) else d.trrd_s)
            for t, b in before[-20:]
        )

    def column_ok(bank):
        """Look back at the columns of the channel."""
        for t, was_write, b in columns:
            same = group_of(b) == group_of(bank)
            if rank_of(b) != rank_of(bank):
                late = d.burst_cycles + d.trtrs
                if was_write and writing:
                    late = d.burst_cycles
                elif was_write:
                    late = max(1, late + d.cwl - d.cl)
                elif writing:
                    late = max(1, late + d.cl - d.cwl)
            elif was_write == writing:
                late = max(d.burst_cycles, d.tccd_l if same else d.tccd_s)
            elif writing:
                late = d.trtw
            else:
                late = d.cwl + d.burst_cycles + (d.twtr_l if same else d.twtr_s)
            if cycle < t + late:
                return False
        return True

    def turned(writing, served):
        """Reads and writes take turns: the kind served, and how many of it in this turn."""
        r, w, over = len(queued[False]), len(queued[True]), served >= queues.turn
        if writing:
            other = not w or (r and (over or w <= queues.drain_low))
        else:
            other = w and (not r or (over and w >= queues.drain_high))
        return (not writing, 0) if (r or w) and other else (writing, served)

    def give_jobs(kind):
        while jobs[kind] and any(s.job is None for s in slots if s.is_write == kind):
            free = [s for s in slots if s.is_write == kind and s.job is None]
            min(free, key=lambda s: s.free).take(jobs[kind].popleft())

    give_jobs(False)
    give_jobs(True)
    while any(s.job for s in slots) or queued[False] or queued[True]:
        cycle += 1
        ready = [
            i for i, s in enumerate(slots)
            if s.offers(cycle, window) and len(queued[s.is_write]) < queues.queue
        ]  # fmt: skip
        if ready:
            i = next((i for i in ready if i >= turn), ready[0])
            turn = (i + 1) % len(slots)
            slot = slots[i]
            burst = slot.job[0] + slot.next
            slot.next += 1
            if slot.is_write:
                queued[True].append((burst, slot, 0))
                slot.done(cycle)
            elif any(q[0] == burst for q in queued[True]):
                slot.data.append(cycle + 1)
                last_data = max(last_data, cycle + 1)
                commands.append((cycle, "forward", 0, 0))
                slot.done(0)
            else:
                queued[False].append((burst, slot, slot.next - 1))
                slot.data.append(None)
            give_jobs(slot.is_write)
        writing, served = turned(writing, served)
        if cycle < bus_free:
            continue
        held = None
        if cycle >= refresh_due:
            held = target
            mine = banks[target * d.banks : (target + 1) * d.banks]
            opened = [b for b in mine if b.row is not None]
            if opened and all(_may_close(d, b, cycle) for b in opened):
                commands.append((cycle, "prea", 0, 0))
                bus_free = cycle + d.command_cycles.pre
                for b in opened:
                    b.row, b.pre = None, cycle
                continue
            if (
                not opened
                and cycle >= refreshed[target] + d.trfc
                and all(cycle >= max(b.pre + d.trp, b.act + d.tras + d.trp) for b in mine)
            ):
                commands.append((cycle, "ref", 0, 0))
                bus_free, refreshed[target] = cycle + d.command_cycles.pre, cycle
                refresh_due += d.trefi // d.ranks
                target = (target + 1) % d.ranks
                continue
        choice = None
        seen_hit = {}
        for position, (burst, _, _) in enumerate(queued[writing]):
            bank, row = place(burst)
            if banks[bank].row == row and banks[bank].passed < queues.hit_cap:
                seen_hit.setdefault(bank, position)
        for position, (burst, _, _) in enumerate(queued[writing]):
            bank, row = place(burst)
            state = banks[bank]
            if rank_of(bank) == held:
                continue
            if state.row is None:
                legal = activate_ok(bank) and cycle >= max(
                    state.pre + d.trp, state.act + d.tras + d.trp,
                    refreshed[rank_of(bank)] + d.trfc,
                )  # fmt: skip
                rank, name = 1, "act"
            elif bank in seen_hit:
                if seen_hit[bank] != position:
                    continue
                legal = column_ok(bank) and cycle >= state.act + d.trcd
                rank, name = 0, "wr" if writing else "rd"
            else:
                legal, rank, name = _may_close(d, state, cycle), 2, "pre"
            if legal and (choice is None or rank < choice[0]):
                choice = rank, name, bank, row, position
        if choice is None:
            continue
        _, name, bank, row, position = choice
        commands.append((cycle, name, bank, row))
        state = banks[bank]
        if name == "act":
            state.row, state.act, state.passed = row, cycle, 0
            acts.append((cycle, bank))
            bus_free = cycle + d.command_cycles.act
        elif name == "pre":
            state.row, state.pre = None, cycle
            bus_free = cycle + d.command_cycles.pre
        else:
            served += 1
            bus_free = cycle + d.command_cycles.column
            before = list(queued[writing])[:position]
            state.passed += any(place(b)[0] == bank and place(b)[1] != row for b, *_ in before)
            _, slot, number = queued[writing][position]
            del queued[writing][position]
            columns.append((cycle, writing, bank))
            if writing:
                state.write_end = cycle + d.cwl + d.burst_cycles
                last_data = max(last_data, state.write_end)
            else:
                state.read = cycle
                slot.data[number] = cycle + d.cl + d.burst_cycles
                last_data = max(last_data, slot.data[number])
                slot.done(0)
                give_jobs(False)
        writing, served = turned(writing, served)  # a command settles whose turn is next
    return commands, last_data


def _may_close(d, bank, cycle):
    return cycle >= max(bank.act + d.tras, bank.read + d.trtp, bank.write_end + d.twr)
