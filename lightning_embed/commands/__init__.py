"""What stands behind `python train.py COMMAND`, one file a command."""
