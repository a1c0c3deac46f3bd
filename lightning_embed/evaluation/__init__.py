"""How well a model predicts a text, and how sure the figures are."""
