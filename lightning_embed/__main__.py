"""`python -m lightning_embed COMMAND` is `python train.py COMMAND`."""

from lightning_embed.cli import main

raise SystemExit(main())
