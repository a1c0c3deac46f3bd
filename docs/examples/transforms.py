"""`TokenEmbedding` under `vmap`, `FakeTensorMode`, `torch.export` and `torch.compile`.

On a CPU an id outside the vocabulary is refused with its value; under `vmap`, where no value can be
read, without it.
"""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lightning_embed import TokenEmbedding

if __name__ == "__main__":
    embedding = TokenEmbedding(10, 4)
    ids = torch.tensor([[3, 1, 2], [9, 0, 1]])
    vectors = embedding(ids)

    assert torch.equal(torch.vmap(embedding)(ids), vectors)

    with FakeTensorMode():  # shapes without memory
        fake = TokenEmbedding(50_000, 4_096)
        print(fake(torch.zeros(8, 2_048, dtype=torch.int64)).shape)

    rows = {0: torch.export.Dim("rows")}
    program = torch.export.export(embedding, (ids,), dynamic_shapes=(rows,))
    assert torch.equal(program.module()(ids.repeat(3, 1)), vectors.repeat(3, 1, 1))

    compiled = torch.compile(embedding, fullgraph=True, backend="eager")  # leave backend out
    assert torch.equal(compiled(ids), vectors)

    for function in (embedding, torch.vmap(embedding)):
        try:
            function(torch.tensor([[3, 10]]))
        except IndexError as error:
            print(error)
        else:
            raise AssertionError("id 10 was accepted")
