"""What a tensor looks like off chip: measure, quantize, encode and decode."""
