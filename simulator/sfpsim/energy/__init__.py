"""Energy of DRAM, codec units, on-chip memory and arithmetic, from tables with sources."""
