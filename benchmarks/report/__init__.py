"""Self-contained HTML pages: one file, no network, readable at desktop and phone width."""
