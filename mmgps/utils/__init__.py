"""Helpers without a subject of their own: files, downloads, locks, progress, text and required packages."""
