"""The front door: `python train.py fit --config configs/stdlib.yaml`."""

from lightning_embed.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
