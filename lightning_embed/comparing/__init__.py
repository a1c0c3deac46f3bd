"""Runs side by side: read from their folders without torch, as a table and as a page."""
