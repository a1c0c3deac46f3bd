"""Using a trained network: continuing and scoring text."""
