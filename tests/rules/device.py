"""A small device on which every rule has a limit of its own."""

import msgspec

from sfpsim.hardware.dram.device import CommandCycles, load_device

DEVICE = msgspec.structs.replace(
    load_device("lpddr4-3200-x16"),
    mapping="ro ra bg ba co", ranks=2, bank_groups=2, banks=8, burst_cycles=4, cl=20, cwl=14,
    trcd=21, trcd_wr=17, trp=23, tras=52, trrd_s=4, trrd_l=7, tfaw=33, t32aw=400, twtr_s=5,
    twtr_l=9, twr=24, trtp=11, tccd_s=4, tccd_l=6, trtw=13, trtrs=2, tppd=3, trfc=200, trfcpb=90,
    trefi=10000, tpbr2pbr=60, txp=8, tcke=6, txs=210, tckesr=10,
    command_cycles=CommandCycles(act=1, column=1, pre=1),
)  # fmt: skip
PER_BANK = msgspec.structs.replace(DEVICE, refresh="per-bank")
LONG = msgspec.structs.replace(DEVICE, command_cycles=CommandCycles(act=4, column=4, pre=2))
DUAL = msgspec.structs.replace(DEVICE, dual_command=True)
