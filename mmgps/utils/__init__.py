"""General helpers: files, downloads, locks, progress, text and required packages."""
