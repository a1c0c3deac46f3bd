"""A trained network as an ONNX file, by PyTorch's own exporter.

Needs the extra `onnx`. Batch and length stay free. Padding's logit is minus infinity in the file
too.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from lightning_embed import DecoderLM


def write_onnx(network: DecoderLM, path: Path) -> None:
    """Ids `(batch, length)` int64 to logits `(batch, length, V)` float32."""
    example = torch.full((2, 16), 4)
    sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=4096)}
    torch.onnx.export(
        network.eval(),
        (example,),
        path,
        input_names=["ids"],
        output_names=["logits"],
        dynamic_shapes=(sizes,),
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def largest_difference(network: DecoderLM, path: Path, ids: torch.Tensor) -> float:
    """Between the file's logits and the network's, padding's aside, which must be equal."""
    session = onnxruntime.InferenceSession(path)
    (theirs,) = session.run(None, {"ids": ids.numpy()})
    with torch.no_grad():
        ours = network(ids).numpy()
    finite = np.isfinite(ours)
    assert (np.isfinite(theirs) == finite).all()
    return float(np.abs(ours[finite] - theirs[finite]).max())


if __name__ == "__main__":
    torch.manual_seed(0)
    network = DecoderLM(100, d_model=64, n_layers=2, n_heads=2).eval()
    for parameter in network.parameters():  # as if trained: a new network's branches are zero
        if parameter.ndim == 2 and parameter is not network.embedding.weight:
            torch.nn.init.normal_(parameter, std=0.1)
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "model.onnx")
    write_onnx(network, path)
    for rows, length in ((2, 16), (1, 1), (3, 40)):
        ids = torch.randint(2, 100, (rows, length))
        difference = largest_difference(network, path, ids)
        print(f"{rows} x {length}: largest difference of a logit {difference:.1e}")
        assert difference < 1e-4
