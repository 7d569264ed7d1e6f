"""sfpsim."""
