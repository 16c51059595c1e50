"""Canonical bytes, checked headers and the hashes that other programs compute."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path

import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from influencerai.errors import ExportError, ModelError
from influencerai.files import safetensors_file

numpy = pytest.importorskip("numpy")

TENSORS = {
    "b.weight": numpy.arange(6, dtype=numpy.float32).reshape(2, 3),
    "a.weight": numpy.arange(4, dtype=numpy.float16),
    "a.alpha": numpy.array(8.0, dtype=numpy.float32),
    "empty": numpy.zeros((0, 3), dtype=numpy.float32),
}
METADATA = {f"ss_{letter}": letter * 3 for letter in "gfedcba"}


def serialized() -> bytes:
    return safetensors.numpy.save(TENSORS, METADATA)


def written(folder: Path, data: bytes) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(data)
    return path


class TestCanonicalSafetensors:
    def test_the_same_content_gives_the_same_bytes(self) -> None:
        # The library's own order of the metadata differs between two calls; ten must agree.
        backwards = dict(reversed(METADATA.items()))
        files = {safetensors_file.canonical_safetensors(serialized(), METADATA) for _ in range(10)}
        files.add(safetensors_file.canonical_safetensors(serialized(), backwards))
        assert len(files) == 1

    def test_the_header_is_sorted_and_aligned(self) -> None:
        data = safetensors_file.canonical_safetensors(serialized(), METADATA)
        (length,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + length])
        names = list(header)
        assert length % 8 == 0
        assert names[0] == "__metadata__"
        assert list(header["__metadata__"]) == sorted(METADATA)
        assert [header[name]["data_offsets"] for name in names[1:]] == sorted(
            header[name]["data_offsets"] for name in names[1:]
        )

    def test_no_metadata_is_no_entry(self, tmp_path: Path) -> None:
        path = written(tmp_path, safetensors_file.canonical_safetensors(serialized(), {}))
        with safetensors.safe_open(path, "numpy") as file:
            assert file.metadata() is None

    @pytest.mark.slow
    @settings(deadline=None)
    @given(metadata=st.dictionaries(st.text(), st.text(), max_size=8))
    def test_metadata_and_tensors_come_back(
        self, tmp_path_factory: pytest.TempPathFactory, metadata: dict[str, str]
    ) -> None:
        path = written(tmp_path_factory.mktemp("file"), safetensors_file.canonical_safetensors(serialized(), metadata))
        with safetensors.safe_open(path, "numpy") as file:
            assert (file.metadata() or {}) == metadata
            assert set(file.keys()) == set(TENSORS)
            for name, tensor in TENSORS.items():
                assert file.get_tensor(name).tobytes() == tensor.tobytes()
                assert file.get_tensor(name).shape == tensor.shape
        assert safetensors_file.read_safetensors_header(path)[0] == metadata


class TestHashes:
    def test_model_hash_is_of_the_bytes_after_the_header(self) -> None:
        data = safetensors_file.canonical_safetensors(serialized(), METADATA)
        with_other_header = safetensors_file.canonical_safetensors(serialized(), {"a": "b"})
        (length,) = struct.unpack_from("<Q", data)
        assert safetensors_file.model_hash(data) == hashlib.sha256(data[8 + length :]).hexdigest()
        assert safetensors_file.model_hash(data) == safetensors_file.model_hash(with_other_header)

    def test_legacy_hash_is_of_64_kib_at_1_mib(self) -> None:
        data = bytearray(0x120000)
        expected = hashlib.sha256(bytes(0x10000)).hexdigest()[:8]
        assert safetensors_file.legacy_hash(bytes(data)) == expected
        data[0xFFFFF] = data[0x110000] = 1
        assert safetensors_file.legacy_hash(bytes(data)) == expected
        data[0x100000] = 1
        assert safetensors_file.legacy_hash(bytes(data)) != expected


class TestReadSafetensorsHeader:
    def test_entries(self, tmp_path: Path) -> None:
        path = written(tmp_path, safetensors_file.canonical_safetensors(serialized(), METADATA))
        metadata, entries = safetensors_file.read_safetensors_header(path)
        assert metadata == METADATA
        assert entries["b.weight"].dtype == "F32"
        assert entries["b.weight"].shape == (2, 3)
        assert entries["b.weight"].end - entries["b.weight"].begin == 24
        assert entries["a.alpha"].shape == ()

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "no header"),
            (b"\x01\x02", "no header"),
            (b"\0" * 64, "no header"),
            (b"PK\x03\x04" + b"\xff" * 60, "header would be"),
            (struct.pack("<Q", 200) + b"{}", "truncated"),
            (struct.pack("<Q", 8) + b"not json", "cannot be parsed"),
            (struct.pack("<Q", 2) + b"[]", "cannot be parsed"),
            (struct.pack("<Q", 2) + b"\xff\xfe", "cannot be parsed"),
            (struct.pack("<Q", 9) + b'{"a": {}}', "cannot be parsed"),
            (struct.pack("<Q", 19) + b'{"a": "not entry"} ', "cannot be parsed"),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    def test_a_damaged_header_is_named(self, tmp_path: Path, data: bytes, message: str) -> None:
        with pytest.raises(ExportError, match=message) as caught:
            safetensors_file.read_safetensors_header(written(tmp_path, data))
        assert "model.safetensors" in caught.value.message
        assert caught.value.remedy

    @pytest.mark.parametrize(
        "entry",
        [
            '{"dtype": "F32", "shape": [1], "data_offsets": [0, 1e999]}',
            '{"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 4]}',
            '{"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}',
            '{"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}',
            '{"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}',
            '{"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}',
            '{"dtype": "F32", "shape": [0, 9223372036854775808], "data_offsets": [0, 0]}',
            '{"dtype": "F32", "shape": [1, 1, 1, 1, 1, 1, 1, 1, 1], "data_offsets": [0, 4]}',
            '{"dtype": "F33", "shape": [1], "data_offsets": [0, 4]}',
            '{"dtype": [], "shape": [1], "data_offsets": [0, 4]}',
        ],
    )
    def test_an_entry_that_describes_no_tensor_is_refused(self, tmp_path: Path, entry: str) -> None:
        header = f'{{"a": {entry}}}'.encode()
        with pytest.raises(ExportError, match="cannot be parsed"):
            safetensors_file.read_safetensors_header(
                written(tmp_path, struct.pack("<Q", len(header)) + header + b"1234")
            )

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.safetensors")
        with pytest.raises(ExportError, match="not a regular file"):
            safetensors_file.read_safetensors_header(tmp_path / "pipe.safetensors")

    def test_every_truncation_is_noticed(self, tmp_path: Path) -> None:
        data = safetensors_file.canonical_safetensors(serialized(), METADATA)
        for length in range(len(data)):
            with pytest.raises(ExportError):
                safetensors_file.read_safetensors_header(written(tmp_path, data[:length]))

    def test_bytes_after_the_last_tensor_are_noticed(self, tmp_path: Path) -> None:
        data = safetensors_file.canonical_safetensors(serialized(), METADATA)
        with pytest.raises(ExportError, match="1 bytes follow"):
            safetensors_file.read_safetensors_header(written(tmp_path, data + b"x"))

    def test_a_shape_that_does_not_fit_its_bytes_is_noticed(self, tmp_path: Path) -> None:
        data = safetensors_file.canonical_safetensors(serialized(), METADATA).replace(b"[2,3]", b"[9,3]")
        with pytest.raises(ExportError, match=r"misplaces the tensor 'b\.weight'"):
            safetensors_file.read_safetensors_header(written(tmp_path, data))

    def test_the_limit_and_the_error_are_the_callers(self, tmp_path: Path) -> None:
        path = written(tmp_path, safetensors_file.canonical_safetensors(serialized(), METADATA))
        with pytest.raises(ModelError, match="the limit is 10"):
            safetensors_file.read_safetensors_header(path, max_bytes=10, error=ModelError)
        with pytest.raises(ModelError, match="cannot be read"):
            safetensors_file.read_safetensors_header(tmp_path / "absent.safetensors", error=ModelError)
