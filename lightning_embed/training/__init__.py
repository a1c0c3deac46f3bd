"""The LightningModule and what acts on its steps: optimizer, metrics, loss watch, sampling."""
