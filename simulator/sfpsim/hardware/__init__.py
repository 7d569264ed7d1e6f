"""The components of the memory path, the machines and the devices."""
