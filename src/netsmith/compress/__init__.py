"""Smaller and faster networks from trained ones: what to take away, decided without run folders."""
