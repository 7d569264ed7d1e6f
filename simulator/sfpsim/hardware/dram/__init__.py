"""Memory devices and the fit of their efficiency."""
