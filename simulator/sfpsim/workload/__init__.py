"""From a trace to ordered transfers: passes, products and on-chip reuse."""
