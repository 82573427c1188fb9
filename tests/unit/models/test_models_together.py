"""Several payload columns as the arguments of one module."""

import pyarrow as pa
import pytest
import torch
from pngs import PIXELS, encoded
from torch import nn

from rayal.errors import ConfigError
from rayal.models import Model
from rayal.models.transform import Undecodable, num_inputs
from rayal.models.transforms import Images, Ngrams, Together, Vector

TOGETHER = Together([Images(height=3, width=4, mode="L"), Ngrams("text", num_buckets=64)])
TEXTS = ["a grey one", "another", None, "x"]


def _rows(*images: bytes | None) -> pa.RecordBatch:
    values = [pa.array(images, pa.binary()), pa.array(TEXTS[: len(images)])]
    return pa.record_batch(values, names=["image", "text"])


def test_the_tensors_of_all_parts_in_their_order() -> None:
    rows = _rows(encoded(PIXELS), encoded(PIXELS[::-1]))
    image, indices, offsets = TOGETHER(rows)
    assert torch.equal(image, TOGETHER.parts[0](rows))
    assert torch.equal(indices, Ngrams("text", num_buckets=64)(rows)[0])
    assert len(offsets) == 2
    assert TOGETHER.columns == ("image", "text")
    assert num_inputs((image, indices, offsets)) == 12
    assert Together([Vector("v"), Vector(["v", "w"])]).columns == ("v", "w")


def test_rows_of_all_parts_are_named_at_once() -> None:
    with pytest.raises(Undecodable, match=r"'image' holds .*; column 'text' is null") as caught:
        TOGETHER(_rows(encoded(PIXELS), None, encoded(PIXELS), b"?"))
    assert caught.value.positions == (1, 2, 3)
    with pytest.raises(ConfigError, match="Together got no parts"):
        Together([])


class Both(nn.Module):
    """An image and its text."""

    def __init__(self, num_outputs: int, num_inputs: int) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(64, 4)
        self.output = nn.Linear(num_inputs + 4, num_outputs)

    def forward(
        self, image: torch.Tensor, indices: torch.Tensor, offsets: torch.Tensor
    ) -> torch.Tensor:
        return self.output(torch.cat([image.flatten(1), self.bag(indices, offsets)], 1))


def test_a_module_takes_them_as_arguments() -> None:
    inputs = TOGETHER(_rows(encoded(PIXELS), encoded(PIXELS)))
    module = Model(Both, TOGETHER).build(num_outputs=3, num_inputs=num_inputs(inputs))
    assert module(*inputs).shape == (2, 3)
