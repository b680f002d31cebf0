"""Helpers that know nothing of GPS."""
