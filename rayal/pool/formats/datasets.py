"""Folders that `save_to_disk` of Hugging Face `datasets` made: which of their files are rows."""

from __future__ import annotations

import json

import pyarrow.fs as pa_fs

from rayal.errors import PoolError

STATE, _SPLITS = "state.json", "dataset_dict.json"


def files_of(filesystem: pa_fs.FileSystem, folder: str) -> list[str] | None:
    """Gives the paths of the dataset's own files, in its order; None for any other folder.

    Beside them may lie files of its cache, which hold other rows.

    Raises:
        PoolError: the folder holds several splits, or rows in an order that only indices say.
    """
    splits = _json(filesystem, f"{folder}/{_SPLITS}")
    if splits is not None:
        names = splits.get("splits")
        some = ", ".join(map(str, names)) if isinstance(names, list) else "several"
        raise PoolError(
            f"{folder} is a dataset of the splits {some}; name one of them, such as "
            f"{folder}/{names[0] if isinstance(names, list) and names else 'train'}"
        )
    state = _json(filesystem, f"{folder}/{STATE}")
    entries = None if state is None else state.get("_data_files")
    if state is None or not isinstance(entries, list):
        return None
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise PoolError(
            f"{folder} is a dataset whose rows are chosen by a file of indices; write it with its "
            "rows in order: dataset.flatten_indices().save_to_disk(...)"
        )
    names = [entry.get("filename") for entry in entries if isinstance(entry, dict)]
    for name in names:
        if not isinstance(name, str) or "/" in name or "\\" in name or name in ("", ".", ".."):
            raise PoolError(
                f"{folder}/{STATE} names the file {name!r}, expected one of the folder itself; "
                "save the dataset again with save_to_disk"
            )
    return [f"{folder}/{name}" for name in names]


def _json(filesystem: pa_fs.FileSystem, path: str) -> dict[str, object] | None:
    if filesystem.get_file_info(path).type != pa_fs.FileType.File:
        return None
    with filesystem.open_input_stream(path) as stream:
        try:
            found = json.loads(stream.read())
        except (ValueError, UnicodeDecodeError) as error:
            raise PoolError(f"{path} is no JSON ({error}); save the dataset again") from error
    return found if isinstance(found, dict) else None
