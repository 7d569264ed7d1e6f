"""What was captured: schema, writer, reader, importers, and capture from PyTorch."""
