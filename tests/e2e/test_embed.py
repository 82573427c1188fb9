"""`rayal embed`: features computed once, on either engine, and a run that reads them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from doors import Doors, contents
from features import COLUMN, MODEL, checkpoint_of, embed, set_of, values_in
from runs import loop_of, picked, write_embeddings

from rayal.engine.embedding import codes_of
from rayal.keys import Keys
from rayal.pool import Pool, compact, delete, feature_file, ingest, open_pool
from rayal.pool.features import FeatureSet, with_features
from rayal.types import Checkpoint

PLAIN = ["model=linear", "model.transform.column=deep", COLUMN]


@pytest.fixture
def own_pool(class_pool: Pool, tmp_path: Path) -> Pool:
    """A copy of the small pool that a test may change."""
    return Pool.open(str(shutil.copytree(class_pool.path, tmp_path / "pool")))


def embeds_of(pool: Pool, checkpoint: Path) -> np.ndarray:
    """The plain computation: every row by itself."""
    loop, _ = loop_of(f"pool.path={pool.path}", *MODEL, "run_dir=unused")
    loop.predictor.load(Checkpoint("", ""), str(checkpoint), Keys(0, 0))
    (module,) = loop.predictor._members
    parts = []
    for shard in pool.shards:
        for rows in pool.batches(shard, ["embedding"], 1000):
            with torch.inference_mode():
                parts.append(module(loop.predictor.model.transform(rows))[1].numpy())
    return np.concatenate(parts)


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-6), ("float16", 1e-3), ("int8", 0.1)])
def test_features_are_the_models_embeds(
    doors: Doors, class_pool: Pool, dtype: str, error: float
) -> None:
    checkpoint = checkpoint_of(doors, class_pool)
    said = embed(doors, class_pool, f"checkpoint={checkpoint}", f"dtype={dtype}")
    assert f"rows x 6 {dtype}" in said.done().out
    assert "10 of 10 shards were embedded now" in said.out
    ids, found_ND = values_in(class_pool, set_of(said))
    assert len(ids) == class_pool.num_rows
    expected_ND = embeds_of(class_pool, checkpoint)
    assert np.abs(expected_ND).max() > 0
    np.testing.assert_allclose(found_ND, expected_ND, atol=error, rtol=error)
    again = embed(doors, class_pool, f"checkpoint={checkpoint}", f"dtype={dtype}")
    assert "0 of 10 shards were embedded now" in again.done().out


@pytest.mark.ray
def test_workers_and_their_order_change_no_byte(
    doors: Doors, class_pool: Pool, small_ray: object
) -> None:
    words = (f"checkpoint={checkpoint_of(doors, class_pool)}", "dtype=int8")
    found = [contents(set_of(embed(doors, class_pool, *words, "+engine.reverse=true")))]
    for workers in (1, 2, 4):
        shutil.rmtree(doors.folder / "sets")
        ray = ("engine=ray", "engine.num_cpus=0.25", f"engine.num_workers={workers}")
        found.append(contents(set_of(embed(doors, class_pool, *words, *ray))))
    files = [{k: v for k, v in one.items() if not k.startswith(".")} for one in found]
    assert len(files[0]) == 11
    assert files[1:] == files[:1] * 3


def test_a_run_reads_them_as_a_column(doors: Doors, class_pool: Pool) -> None:
    """Every strategy's way to a column: the model's inputs, the selector's, and snapshots."""
    checkpoint = checkpoint_of(doors, class_pool)
    place = set_of(embed(doors, class_pool, f"checkpoint={checkpoint}"))
    words = (*PLAIN, "pool.features=sets", "num_rounds=3")
    doors.run(class_pool, "margin", *words).done()
    doors.run(class_pool, "cover", *words, "strategy=k_center",
              "strategy.selector.feature=deep").done()  # fmt: skip
    assert [len(ids) for ids in picked(doors.folder / "margin")] == [20] * 3
    opened = open_pool(class_pool.path, features=str(place), features_column="deep")
    ids = np.array(picked(doors.folder / "cover")[1])
    rows = opened.rows(ids, ["deep", "sample_id"])
    assert rows.column("sample_id").to_pylist() == ids.tolist()
    order, values_ND = values_in(class_pool, place)
    places = [order.tolist().index(one) for one in ids.tolist()]
    stored = np.frombuffer(b"".join(rows.column("deep").to_pylist()), np.float16).reshape(-1, 6)
    np.testing.assert_array_equal(stored, values_ND[places])
    # Other features are another run.
    other = embed(doors, class_pool, f"checkpoint={checkpoint}", "dtype=int8")
    again = doors.run(class_pool, "margin", *words[:-2], f"pool.features={set_of(other)}",
                      "num_rounds=3")  # fmt: skip
    again.refused("pool_features: ", "as deep")
    doors.run(class_pool, "margin", "model=linear", "num_rounds=3").refused("pool_features")


def test_killed_between_two_shards_it_goes_on(
    doors: Doors, class_pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (f"checkpoint={checkpoint_of(doors, class_pool)}", "dtype=int8")
    whole = contents(set_of(embed(doors, class_pool, *words)))
    shutil.rmtree(doors.folder / "sets")
    plain, closed = feature_file.FeatureWriter.close, []

    def close(self: feature_file.FeatureWriter) -> feature_file.Counts:
        closed.append(1)
        if len(closed) == 4:
            raise KeyboardInterrupt
        return plain(self)

    monkeypatch.setattr(feature_file.FeatureWriter, "close", close)
    assert embed(doors, class_pool, *words).code == 130
    monkeypatch.undo()
    monkeypatch.chdir(doors.folder)
    said = embed(doors, class_pool, *words)
    assert "7 of 10 shards were embedded now" in said.done().out
    assert contents(set_of(said)) == whole


def test_a_damaged_file_is_told_and_made_anew(doors: Doors, class_pool: Pool) -> None:
    words = (f"checkpoint={checkpoint_of(doors, class_pool)}",)
    place = set_of(embed(doors, class_pool, *words))
    whole = contents(place)
    path = sorted(place.glob("pool-*.arrow"))[1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    line = doors.run(class_pool, "r", *PLAIN, f"pool.features={place}").refused("is damaged")
    assert path.name in line
    assert "run the same rayal embed again" in line
    assert "1 of 10 shards were embedded now" in embed(doors, class_pool, *words).done().out
    assert contents(place) == whole
    doors.run(class_pool, "r", *PLAIN, f"pool.features={place}").done()


def test_a_pool_that_grows_and_forgets(doors: Doors) -> None:
    (doors.folder / "in").mkdir()
    write_embeddings(doors.folder / "in" / "0.parquet", 300)
    words = {"label_column": "label", "rows_per_shard": 100}
    pool = ingest(str(doors.folder / "in"), str(doors.folder / "pool"), **words)  # type: ignore[arg-type]
    embed_words = (f"checkpoint={checkpoint_of(doors, pool)}", "dtype=int8")
    place = set_of(embed(doors, pool, *embed_words))
    ids, values_ND = values_in(pool, place)
    write_embeddings(doors.folder / "in" / "1.parquet", 200, seed=1)
    grown = ingest(str(doors.folder / "in"), str(doors.folder / "pool"), **words)  # type: ignore[arg-type]
    line = doors.run(grown, "r", *PLAIN, f"pool.features={place}").refused("have no features in")
    assert "4 of 10 shards" in line
    assert "run the same rayal embed again, which does what is missing" in line
    gone = [int(ids[3]), int(ids[150])]
    assert delete(grown.path, [str(one) for one in gone]) == 2
    assert "4 of 10 shards were embedded now" in embed(doors, grown, *embed_words).done().out
    now, later_ND = values_in(grown, place)
    assert len(now) == grown.num_rows - 2
    assert not set(gone) & set(now.tolist())
    kept = ~np.isin(ids, gone)
    np.testing.assert_array_equal(later_ND[: kept.sum()], values_ND[kept])
    assert compact(grown.path) > 0
    said = embed(doors, grown, *embed_words).done()
    assert "2 of 10 shards were embedded now" in said.out
    assert len(list(place.glob("*.arrow"))) == 10  # those of before are gone, bytes and all
    then, last_ND = values_in(grown, place)
    np.testing.assert_array_equal(then, now)
    np.testing.assert_array_equal(last_ND, later_ND)


def test_removed_rows_have_a_place_and_no_features(doors: Doors, own_pool: Pool) -> None:
    """Deleted before the embedding: nothing is computed of them, and nothing moves."""
    checkpoint = checkpoint_of(doors, own_pool)
    shard = own_pool.shards[1]
    ids = next(own_pool.batches(shard, ["sample_id"], 1000)).column(0).to_numpy()
    delete(own_pool.path, [str(ids[0]), str(ids[70]), str(ids[-1])])
    place = set_of(embed(doors, own_pool, f"checkpoint={checkpoint}", "dtype=float32"))
    now = Pool.open(own_pool.path)
    _, values_ND = values_in(now, place)
    np.testing.assert_allclose(values_ND, embeds_of(now, checkpoint), atol=1e-6)
    opened = open_pool(now.path, features=str(place), features_column="deep")
    assert opened.features is not None
    column = opened.features.take(now.shards[1], np.arange(shard.num_rows))
    nulls = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
    assert nulls.tolist() == [0, 70, shard.num_rows - 1]


def test_rows_that_cannot_be_read_have_none_and_are_rejected(doors: Doors) -> None:
    rows = [[float(i), 1.0] for i in range(200)]
    table = {"v": [None if i in (7, 90) else row for i, row in enumerate(rows)],
             "label": ["a" if i % 3 else "b" for i in range(200)]}  # fmt: skip
    import pyarrow.parquet as pq

    pq.write_table(pa.table(table), doors.folder / "in.parquet")
    pool = ingest(str(doors.folder / "in.parquet"), str(doors.folder / "pool"),
                  label_column="label", rows_per_shard=100)  # fmt: skip
    words = ("model.transform.column=v", "max_rejected_share=0.1")
    doors.run(pool, "base", *MODEL, *words, "num_rounds=1").done()
    said = embed(doors, pool, f"checkpoint={doors.folder / 'base/checkpoints/r0000'}", words[0])
    assert "rows could not be decoded and have none" in said.done().out
    run = doors.run(pool, "r", "model=linear", "pool.features=sets", words[1]).done()
    assert "could not be decoded and are left out" in run.err
    assert not {7, 90} & {one for ids in picked(doors.folder / "r") for one in ids}


def test_codes_beyond_the_largest_are_cut_off_and_counted() -> None:
    values_ND = np.array([[1.0, -3.0], [400.0, 0.25], [1e9, 1e9]], np.float32)
    null_N = np.array([False, False, True])
    features = FeatureSet("", "", "", "", "int8", 2).with_scales(np.array([1.0, 0.5], np.float32))
    codes_ND, num_cut_off = codes_of(values_ND, null_N, features)
    assert codes_ND.dtype == np.int8
    assert codes_ND[:2].tolist() == [[1, -6], [127, 0]]
    assert num_cut_off == 1
    half, num_cut_off = codes_of(values_ND * 1e3, null_N, FeatureSet("", "", "", "", "float16", 2))
    assert (half[1].tolist(), num_cut_off) == ([65_504.0, 250.0], 1)


OWN = """
import torch


class Fixed(torch.nn.Module):
    def __init__(self, num_outputs, num_inputs, drawn=False):
        super().__init__()
        self.first = torch.nn.Linear(num_inputs, 5)
        self.last = torch.nn.Linear(5, num_outputs)
        if not drawn:
            with torch.no_grad():
                self.first.weight.fill_(0.5)
                self.first.bias.fill_(1.0)

    def forward(self, inputs):
        embeds = self.first(inputs)
        return self.last(embeds), embeds


class Bare(torch.nn.Linear):
    def __init__(self, num_outputs, num_inputs):
        super().__init__(num_inputs, num_outputs)
"""


def test_a_module_that_brings_its_own_weights(doors: Doors, class_pool: Pool) -> None:
    doors.module("my_backbones", OWN)
    words = ["model=linear", "model.module._target_=my_backbones.Fixed"]
    asked = ["experiment=embeddings", f"pool.path={class_pool.path}", "features=sets"]
    place = set_of(doors("embed", *asked, *words, "dtype=float32"))
    _, found_ND = values_in(class_pool, place)
    rows = [
        rows.column(0)
        for shard in class_pool.shards
        for rows in class_pool.batches(shard, ["embedding"], 1000)
    ]
    flat = np.frombuffer(b"".join(one for part in rows for one in part.to_pylist()), np.float32)
    sums_N = flat.reshape(-1, 8).sum(1) * 0.5 + 1.0
    np.testing.assert_allclose(found_ND, np.repeat(sums_N[:, None], 5, 1), rtol=1e-5, atol=1e-5)


def test_bad_words(doors: Doors, class_pool: Pool, number_pool: Pool) -> None:
    doors.module("my_backbones", OWN)
    checkpoint = checkpoint_of(doors, class_pool)
    asked = ["experiment=embeddings", f"pool.path={class_pool.path}", "features=sets"]
    own = [*asked, "model=linear"]

    doors("embed", *asked[:2]).refused("features has no value", "features=...")
    embed(doors, class_pool, "checkpoint=nowhere").refused(
        "there is no checkpoint in", "nowhere (no model.json); name a folder that a trainer left"
    )
    embed(doors, class_pool, f"checkpoint={checkpoint}", "model.module.hidden=[7]").refused(
        "is of another architecture: 'body.0.bias' is 6 there and 7 in the configured MLP"
    )
    doors("embed", *own, "model.module._target_=my_backbones.Fixed",
          "+model.module.drawn=true").refused(
        "checkpoint is null, and the module's embeds change with the seed",
        "it brings no weights of its own; give checkpoint=RUN_DIR/checkpoints/r0000",
    )  # fmt: skip
    doors("embed", *own, "model.module._target_=my_backbones.Bare").refused(
        "the model gives no embeds, expected a module whose forward gives (logits, embeds)"
    )
    embed(doors, class_pool, f"checkpoint={checkpoint}", "dtype=int4").refused(
        "dtype is 'int4', expected one of"
    )
    embed(doors, class_pool, f"checkpoint={checkpoint}", "features=' '").refused(
        "features is ' ', expected a folder that the driver and every worker see, or the URL"
    )
    embed(doors, class_pool, f"checkpoint={checkpoint}", "features=s3:///x").refused(
        "s3:///x names no bucket"
    )
    embed(doors, class_pool, f"checkpoint={checkpoint}", "feature_gib=1").refused(
        "there is no key 'feature_gib'", "did you mean", "`rayal embed --cfg job` prints all keys"
    )
    doors("embed", "--nope").refused("rayal embed: unrecognized arguments: --nope", code=2)
    assert not (doors.folder / "sets").exists()

    place = set_of(embed(doors, class_pool, f"checkpoint={checkpoint}"))
    small = ["model=linear"]
    doors.run(class_pool, "r", *small, f"pool.features={place}").refused(
        "has a column 'embedding' of its own", "pool.features_column=NAME"
    )
    numbers = ["model.kind=number", f"pool.features={place}", *small]
    doors.run(number_pool, "r", *numbers).refused(
        "are of another pool (its content began as", "run rayal embed for this pool"
    )
    doors.run(class_pool, "r", *small, "pool.features=elsewhere").refused(
        "there are no features in", "expected a folder that rayal embed made"
    )
    embed(doors, class_pool, f"checkpoint={checkpoint}", "dtype=int8").done()
    doors.run(class_pool, "r", *small, COLUMN, "pool.features=sets").refused(
        "has 2 sets of features of this pool", "name one of these folders in pool.features"
    )
    doors.run(number_pool, "r", *numbers[:1], *small, "pool.features=sets").refused(
        "has 2 sets of features, all of other pools"
    )
    (place / "features.json").write_text("{")
    doors.run(class_pool, "r", *small, COLUMN, f"pool.features={place}").refused(
        "does not describe a set of features", "remove that folder"
    )


def test_two_at_once_into_one_set(doors: Doors, class_pool: Pool) -> None:
    from rayal.locks import lock

    words = (f"checkpoint={checkpoint_of(doors, class_pool)}",)
    place = set_of(embed(doors, class_pool, *words))
    file = lock(place / ".lock")
    assert file is not None
    with file:
        embed(doors, class_pool, *words).refused(
            "are being written by process", "wait for it or end it"
        )
    assert len(with_features(class_pool.manifest)) == 10
