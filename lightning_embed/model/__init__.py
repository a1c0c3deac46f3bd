"""The decoder-only network in plain PyTorch: attention, loss, stack."""
