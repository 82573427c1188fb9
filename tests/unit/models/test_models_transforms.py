import numpy as np
import pyarrow as pa
import pytest
import torch

from rayal.columns import vector_field
from rayal.errors import PoolError
from rayal.models.transform import Undecodable, as_arguments, num_inputs
from rayal.models.transforms.pixels import Pixels
from rayal.models.transforms.vector import Vector


def vector_rows(name: str, values: np.ndarray) -> pa.RecordBatch:
    field = vector_field(name, values.dtype, values.shape[1])
    column = pa.array([row.tobytes() for row in values], field.type)
    return pa.record_batch([column], schema=pa.schema([field]))


def test_vector_scales_and_normalizes_also_in_slices() -> None:
    values = np.array([[3, 4], [-127, 0], [0, 0]], np.int8)
    rows = vector_rows("embedding", values)
    assert torch.equal(Vector()(rows), torch.tensor([[3.0, 4], [-127, 0], [0, 0]]))
    scaled = Vector(scale=0.5)(rows.slice(1, 1))
    assert torch.equal(scaled, torch.tensor([[-63.5, 0.0]]))
    normal = Vector(normalize=True)(rows)
    torch.testing.assert_close(normal, torch.tensor([[0.6, 0.8], [-1, 0], [0, 0]]))


def test_vector_never_shares_the_pools_memory() -> None:
    rows = vector_rows("embedding", np.ones((2, 3), np.float32))
    Vector()(rows).zero_()
    assert torch.equal(Vector()(rows), torch.ones(2, 3))


def test_vector_consumes_rows_that_may_be_written_to_and_no_others() -> None:
    own = vector_rows("embedding", np.ones((2, 3), np.float32))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, own.schema) as writer:
        writer.write_batch(own)
    as_bytes = pa.py_buffer(sink.getvalue().to_pybytes())  # read-only, as a mapped file is
    read_only = pa.ipc.open_stream(as_bytes).read_next_batch()
    for rows, vector in (
        (read_only, Vector()),
        (own, Vector(scale=1.0)),
        (own, Vector(normalize=True)),
    ):
        vector.consume(rows).zero_()
        assert torch.equal(Vector()(rows), torch.ones(2, 3))
    Vector().consume(own).zero_()
    assert torch.equal(Vector()(own), torch.zeros(2, 3))


def test_vector_puts_columns_side_by_side() -> None:
    embedding = vector_rows("e", np.array([[1, 2], [3, 4]], np.float32))
    rows = embedding.append_column("x", pa.array([5, 6]))
    transform = Vector(column=("x", "e"))
    assert transform.columns == ("x", "e")
    assert transform(rows).tolist() == [[5, 1, 2], [6, 3, 4]]


def test_vector_rejects_rows_that_are_not_finite() -> None:
    values = np.array([[1, np.nan], [1, 2], [np.inf, 0]], np.float32)
    with pytest.raises(Undecodable, match="column 'e' holds NaN or infinity") as caught:
        Vector("e")(vector_rows("e", values))
    assert caught.value.positions == (0, 2)
    with pytest.raises(Undecodable, match="column 'x' is null there") as caught:
        Vector("x")(pa.record_batch({"x": pa.array([1, None])}))
    assert caught.value.positions == (1,)
    huge = np.full((4, 2), 3e38, np.float32)  # the sum overflows, the values do not
    assert Vector("e")(vector_rows("e", huge)).shape == (4, 2)


def test_pixels_are_images_from_0_to_1() -> None:
    values = np.arange(12, dtype=np.uint8).reshape(2, 6) * 20
    images = Pixels(height=2, width=3)(vector_rows("pixels", values))
    assert images.shape == (2, 1, 2, 3)
    torch.testing.assert_close(images.flatten(1), torch.from_numpy(values / 255).float())
    shifted = Pixels(height=2, width=3, mean=0.5, std=0.25)(vector_rows("pixels", values))
    torch.testing.assert_close(shifted, (images - 0.5) / 0.25)


def test_pixels_of_another_width_are_refused() -> None:
    with pytest.raises(PoolError, match=r"holds uint8 x 6, expected uint8 x 784 \(1 x 28 x 28\)"):
        Pixels()(vector_rows("pixels", np.zeros((2, 6), np.uint8)))


def test_num_inputs_is_the_width_of_the_first_tensor() -> None:
    assert num_inputs(torch.zeros(5, 7)) == 7
    assert num_inputs((torch.zeros(5, 1, 4, 4), torch.zeros(5))) == 16
    assert num_inputs(torch.zeros(5)) == 1
    assert len(as_arguments(torch.zeros(1))) == 1
