"""Changes of files: bytes of any, and by structure of JSON, YAML, CSV, Parquet, .npy and safetensors.

Each takes the file and a source of random numbers, and writes the changed file in its place. What is mutated and how
depends on the numbers alone, so that a seed finds the same inputs again.
"""

import copy
import io
import json
import math
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

Mutation = Callable[[Path, random.Random], None]

_NUMBERS = (
    0, -1, 1, 2, 3, 255, 256, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64, 10**30, 10**400,
    -0.0, 0.5, 1e-320, 1e308, -1e308, 1.5, math.nan, math.inf, -math.inf,
)  # fmt: skip
_TEXTS = (
    "", " ", "a", "0", "1_0", "-1", "nan", "NaN", "inf", "true", "null", "../../x", "/etc/passwd", "/dev/zero", "~",
    ".", "..", "a/b", "a\\b", "a\0b", "a\nb", "\x1b[2J", "\u202e", "\ud800", "é", "e\u0301", "１", "٣", "🧠", "=1+1",
    "<script>", "{{7*7}}", "%s%n", "x" * 300, "x" * 70_000, "subj01", "test", "train", "validation", "float16", "int8",
    "bfloat16", "object", "__class__", "torch.nn.Linear", "trust_remote_code", "session", "pooled", "identity",
)  # fmt: skip
_TREES: tuple[Any, ...] = (
    None, True, False, [], {}, [[]], [None], [{}], {"": None}, [1, "a"], {"a": {"b": {"c": []}}}, [0] * 5000,
)  # fmt: skip


def mutate(path: Path, rng: random.Random) -> str:
    """Changes a file by one of the ways that its kind knows, one to three times; returns what was done."""
    kinds = [*_BY_ENDING.get(path.suffix.lower(), ()), *_BY_NAME.get(path.name, ())]
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        way = rng.choice(kinds) if kinds and rng.random() < 0.7 else rng.choice(_OF_BYTES)
        try:
            way(path, rng)
        except Exception as error:
            # What an earlier change has made of the file can't be parsed any more.
            done.append(f"{way.__name__} ({type(error).__name__})")
            rng.choice(_OF_BYTES)(path, rng)
        else:
            done.append(way.__name__)
    return ", ".join(done)


def any_value(rng: random.Random) -> Any:
    """A number, a text or a tree that is probably not what was expected."""
    kind = rng.randrange(8)
    if kind < 3:
        return rng.choice(_NUMBERS)
    if kind < 6:
        return rng.choice(_TEXTS)
    # Its own, since later changes would otherwise find, and at length contain, those of earlier files.
    return copy.deepcopy(rng.choice(_TREES))


# Bytes


def flip_bytes(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 4, 32))):
        if data:
            data[_place(data, rng)] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def set_bytes(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if data:
        place = _place(data, rng)
        new = rng.choice((b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", rng.randbytes(8), b'"', b"\xed\xa0\x80"))
        data[place : place + len(new)] = new
    path.write_bytes(data)


def delete_bytes(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    start = _place(data, rng)
    path.write_bytes(data[:start] + data[start + rng.choice((1, 2, 8, 100)) :])


def insert_bytes(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    start = _place(data, rng)
    new = rng.choice((b"\0", rng.randbytes(rng.randrange(1, 40)), b" ", b"PK\x03\x04", b"\xef\xbb\xbf", b"\r\n"))
    path.write_bytes(data[:start] + new + data[start:])


def truncate(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: _place(data, rng)])


def repeat_bytes(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    start = _place(data, rng)
    piece = data[start : start + rng.choice((1, 16, 1000))]
    path.write_bytes(data[:start] + piece * rng.choice((2, 2, 50)) + data[start:])


def replace_by_random(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(rng.choice((0, 1, 8, 100, 5000))))


def replace_by_other_format(path: Path, rng: random.Random) -> None:
    path.write_bytes(
        rng.choice(
            (
                b"PK\x05\x06" + b"\0" * 18,
                b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00N.",
                b"PAR1" + b"\0" * 20 + b"PAR1",
                b"\x89PNG\r\n\x1a\n",
                b"GIF89a\xff\xff\xff\xff\0\0\0",
                b"\x93NUMPY\x01\x00",
                b"%PDF-1.4",
                b"\x1f\x8b\x08\0",
                b"<html></html>",
                b"{}",
                b"[]",
                b"null",
                b"[" * 100_000,
                b'{"a":' * 100_000,
                b"\xff\xfe{\0}\0",
            )
        )
    )


def _place(data: bytes | bytearray, rng: random.Random) -> int:
    """Somewhere, but more often near the beginning or the end, where formats keep what they are."""
    if not data:
        return 0
    where = rng.randrange(4)
    near = min(len(data), 200)
    if where == 0:
        return rng.randrange(near)
    if where == 1:
        return len(data) - 1 - rng.randrange(near)
    return rng.randrange(len(data))


_OF_BYTES: tuple[Mutation, ...] = (
    flip_bytes, set_bytes, delete_bytes, insert_bytes, truncate, repeat_bytes, replace_by_random,
    replace_by_other_format,
)  # fmt: skip


# Trees: JSON, YAML


def change_json(path: Path, rng: random.Random) -> None:
    tree = _change_tree(json.loads(path.read_text("utf-8")), rng)
    path.write_bytes(_dump(tree).encode("utf-8", "surrogatepass"))


def change_json_line(path: Path, rng: random.Random) -> None:
    lines = path.read_text("utf-8").splitlines()
    place = rng.randrange(len(lines))
    lines[place] = _dump(_change_tree(json.loads(lines[place]), rng))
    path.write_bytes("\n".join([*lines, ""]).encode("utf-8", "surrogatepass"))


def swap_json_values(path: Path, rng: random.Random) -> None:
    tree = json.loads(path.read_text("utf-8"))
    (a, key), (b, other) = rng.choice(_places(tree)), rng.choice(_places(tree))
    a[key], b[other] = json.loads(json.dumps(b[other])), json.loads(json.dumps(a[key]))
    path.write_text(json.dumps(tree), "utf-8")


def nest_json(path: Path, rng: random.Random) -> None:
    """Puts something very deep into one place."""
    text = path.read_text("utf-8")
    tree = json.loads(text)
    target, key = rng.choice(_places(tree))
    target[key] = "@@deep@@"
    depth = rng.choice((50, 99, 101, 900, 3000, 100_000))
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}")))
    deep = opening * depth + "1" + closing * depth
    path.write_text(json.dumps(tree).replace('"@@deep@@"', deep), "utf-8")


def change_yaml(path: Path, rng: random.Random) -> None:
    tree = _change_tree(yaml.safe_load(path.read_text("utf-8")), rng)
    path.write_bytes(yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass"))


def add_yaml(path: Path, rng: random.Random) -> None:
    text = path.read_text("utf-8")
    lines = text.splitlines()
    place = rng.randrange(len(lines) + 1)
    new = rng.choice(
        (
            "a: &a [*a]", "x: &x {<<: *x}", "? [a, b]\n: c", "!!python/object/apply:os.getcwd []", "d: 2020-01-01",
            "b: !!binary aGk=", "s: !!set {a, b}", "o: !!omap [a: 1]", "i: .inf", "n: .nan", "e: 1e999",
            "h: 0x" + "f" * 500, "---", "...", "\t- a", "key: 'unclosed", "1: 2", "null: 3", "b: &b [1]\nc: [*b, *b]",
            "t: 1:1:1:1", "%YAML 9",
        )
    )  # fmt: skip
    path.write_text("\n".join([*lines[:place], new, *lines[place:]]), "utf-8")


def _change_tree(tree: Any, rng: random.Random) -> Any:
    if not isinstance(tree, dict | list) or not tree or rng.random() < 0.03:
        return any_value(rng)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = _places(tree)
        if not places:
            return tree
        target, key = rng.choice(places)
        _change_place(target, key, rng)
    return tree


def _change_place(target: Any, key: Any, rng: random.Random) -> None:
    value, what = target[key], rng.randrange(10)
    if what == 0:
        del target[key]
    elif what == 1 and isinstance(target, dict):
        target[rng.choice(_TEXTS)] = target.pop(key)
    elif what == 2 and isinstance(target, dict):
        target[rng.choice(_TEXTS)] = any_value(rng)
    elif what == 2:
        target.append(any_value(rng))
    elif what == 3 and isinstance(value, bool | int | float):
        target[key] = rng.choice(
            (value + 1, -value, value * 2, value / 2, str(value), [value], bool(value), value * 1e6)
        )
    elif what == 3 and isinstance(value, str):
        target[key] = rng.choice((value + "x", value.upper(), [value], value[:-1], f"../{value}", value + "\n", 0))
    elif what == 3 and isinstance(value, list):
        target[key] = rng.choice(
            (value[:-1], value + value, value[::-1], value[:1], [value], {"0": value}, "".join(map(str, value)))
        )
    elif what == 3 and isinstance(value, dict):
        target[key] = rng.choice((list(value), list(value.values()), [value], {}, dict.fromkeys(value)))
    else:
        target[key] = any_value(rng)


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) below a tree."""
    found, left = [], [tree]
    while left:
        container = left.pop()
        keys = list(container) if isinstance(container, dict) else range(len(container))
        for key in keys:
            found.append((container, key))
            if isinstance(container[key], dict | list):
                left.append(container[key])
    return found


def _dump(tree: Any) -> str:
    return json.dumps(tree, ensure_ascii=False)


# CSV


def change_csv(path: Path, rng: random.Random) -> None:
    rows = [line.split(",") for line in path.read_text("utf-8").splitlines()]
    what, row = rng.randrange(9), rng.randrange(len(rows))
    column = rng.randrange(len(rows[row])) if rows[row] else 0
    if what == 0:
        del rows[row]
    elif what == 1:
        rows.insert(row, rows[rng.randrange(len(rows))])
    elif what == 2:
        rows[row] = rows[row][:column]
    elif what == 3:
        rows[row].insert(column, str(any_value(rng)))
    elif what == 4:
        place = rng.randrange(len(rows[0]))
        rows = [[cell for number, cell in enumerate(cells) if number != place] for cells in rows]
    elif what == 5:
        rows[row][column] = f'"{rows[row][column]}' + rng.choice(('"', "", '""', '"x'))
    else:
        rows[row][column] = str(any_value(rng))
    ending = rng.choice(("\n", "\n", "\r\n", "\r"))
    path.write_bytes((ending.join(",".join(cells) for cells in rows) + ending).encode("utf-8", "surrogatepass"))


# Parquet


def change_parquet(path: Path, rng: random.Random) -> None:
    """Another table in the same format: columns gone, of other types, with nulls, other lengths, other values."""
    table = pq.read_table(path)
    what = rng.randrange(9)
    if what == 0:
        table = table.slice(0, rng.choice((0, 1, max(0, table.num_rows - 1))))
    elif what == 1:
        table = pa.concat_tables([table, table.slice(0, rng.choice((1, 2, table.num_rows)))])
    elif what == 2 and table.num_rows:
        table = table.take(pa.array(rng.sample(range(table.num_rows), table.num_rows)))
    elif what == 3:
        table = table.drop_columns([rng.choice(table.column_names)])
    elif what == 4:
        name = rng.choice(table.column_names)
        table = table.rename_columns([rng.choice(_NAMES) if each == name else each for each in table.column_names])
    elif what == 5:
        table = table.append_column(rng.choice(_NAMES), pa.array([any_text(rng)] * table.num_rows))
    elif what == 6:
        table = table.replace_schema_metadata({any_text(rng): any_text(rng) for _ in range(3)})
    else:
        place = rng.randrange(table.num_columns)
        table = table.set_column(place, table.column_names[place], _other_column(table.column(place), rng))
    pq.write_table(
        table, path, **rng.choice(({}, {"compression": "NONE"}, {"row_group_size": 7}, {"use_dictionary": False}))
    )


_NAMES = ("", "x", "fmri", "stimulus_id", "fold", "split", "image", "Fmri", "trial.x", "session", "value")


def any_text(rng: random.Random) -> str:
    return rng.choice(_TEXTS).encode("utf-8", "replace").decode()


def _other_column(column: pa.ChunkedArray, rng: random.Random) -> pa.Array:
    values = column.to_pylist()
    rows, what = len(values), rng.randrange(8)
    if what == 0:
        return pa.nulls(rows, column.type)
    if what == 1:
        return pa.nulls(rows)
    if what == 2:
        return pa.array([None if rng.random() < 0.1 else value for value in values], column.type)
    if what == 3:
        return rng.choice(
            (
                pa.array([any_text(rng)] * rows),
                pa.array(range(rows), pa.int64()),
                pa.array([-1] * rows, pa.int8()),
                pa.array([2**62] * rows),
                pa.array([0.5] * rows),
                pa.array([math.nan] * rows),
                pa.array([True] * rows),
                pa.array([b"\x89PNG"] * rows),
                pa.array([[0.5, 1.5]] * rows),
                pa.array([[]] * rows, pa.list_(pa.float32())),
                pa.array([{"a": 1}] * rows),
                pa.array([0] * rows, pa.timestamp("s")),
            )
        )
    if what == 4 and rows:
        values[rng.randrange(rows)] = values[rng.randrange(rows)]
        return pa.array(values, column.type)
    return pa.array([_other_cell(value, rng) if rng.random() < 0.2 else value for value in values], column.type)


def _other_cell(value: Any, rng: random.Random) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((0, -1, value + 1, -value, 127))
    if isinstance(value, float):
        return rng.choice((math.nan, math.inf, -math.inf, 0.0, -value, 1e30, value * 1e4))
    if isinstance(value, str):
        return any_text(rng)
    if isinstance(value, bytes):
        return rng.choice(
            (b"", value[: len(value) // 2], rng.randbytes(50), value + b"\0", value[:20] + b"\xff" + value[21:])
        )
    if isinstance(value, list) and value:
        return [_other_cell(each, rng) if rng.random() < 0.1 else each for each in value]
    if isinstance(value, dict):
        return {key: _other_cell(each, rng) for key, each in value.items()}
    return value


# .npy


def change_npy_header(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    length = struct.unpack("<H", data[8:10])[0]
    header = data[10 : 10 + length].decode("latin-1")
    old, new = rng.choice(
        (
            ("'shape': (", "'shape': (9223372036854775807, "),
            ("'shape': (", "'shape': (-1, "),
            ("'shape': (", "'shape': (0, "),
            ("'shape': (", "'shape': ([], "),
            ("'shape': (", "'shape': (True, "),
            ("'shape': (", "'shape': 7, 'x': ("),
            ("'shape': (", "'shape': (1099511627776, "),
            ("'shape': (", "'shape': (((((("),
            ("'<f4'", "'|O'"),
            ("'<f4'", "'<f2'"),
            ("'<f4'", "'<f8'"),
            ("'<f4'", "'>f4'"),
            ("'<f4'", "'<i4'"),
            ("'<f4'", "'<u4'"),
            ("'<f4'", "'|b1'"),
            ("'<f4'", "'<c8'"),
            ("'<f4'", "'<U1'"),
            ("'<f4'", "[('a', '<f4')]"),
            ("'<f4'", "'<f16'"),
            ("'<f4'", "7"),
            ("False", "True"),
            ("False", "None"),
            ("{", "{" * 60),
            ("}", "} + {"),
            ("descr", "desc"),
        )
    )
    new_header = header.replace(old, new, 1).encode("latin-1")
    path.write_bytes(data[:8] + struct.pack("<H", len(new_header)) + new_header + data[10 + length :])


def change_npy_values(path: Path, rng: random.Random) -> None:
    values = np.load(path)
    what = rng.randrange(6)
    if what == 0:
        values = values[: rng.randrange(len(values) + 1)]
    elif what == 1:
        values = values.astype(rng.choice(("f2", "f8", ">f4", "i1", "u1", "i8", "u8", "?", "c8", "S4", "longdouble")))
    elif what == 2:
        values = rng.choice((values.T, values[..., None], values.reshape(-1), values[0], values[:, :0], values[:, :-1]))
    else:
        flat = values.reshape(-1).copy()
        flat[rng.randrange(len(flat))] = rng.choice((math.nan, math.inf, -math.inf, 1e38, 0))
        values = flat.reshape(values.shape)
    file = io.BytesIO()
    np.save(file, values) if rng.random() < 0.9 else np.savez(file, values)
    path.write_bytes(file.getvalue())


# safetensors


def change_safetensors_header(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = _dump(_change_tree(json.loads(data[8 : 8 + length]), rng)).encode("utf-8", "surrogatepass")
    stated = len(header) if rng.random() < 0.9 else rng.choice((0, 2**63, length + 1, 10**9))
    path.write_bytes(struct.pack("<Q", stated) + header + data[8 + length :])


def change_tensors(path: Path, rng: random.Random) -> None:
    """Whole and readable, with other tensors in it."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name, what = rng.choice(sorted(tensors)), rng.randrange(9)
    tensor = tensors[name]
    if what == 0:
        del tensors[name]
    elif what == 1:
        tensors = {}
    elif what == 2:
        tensors[any_text(rng)[:100]] = torch.zeros(3)
    elif what == 3:
        tensors[name] = tensor.reshape(-1)[: rng.randrange(tensor.numel() + 1)].clone()
    elif what == 4:
        tensors[name] = tensor.to(rng.choice((torch.float16, torch.float64, torch.int8, torch.bool, torch.bfloat16)))
    elif what == 5:
        tensors[name] = tensor.unsqueeze(0).clone() if rng.random() < 0.5 else tensor.flip(0).clone()
    elif what == 6 and metadata:
        metadata[rng.choice(sorted(metadata))] = rng.choice((any_text(rng), "[]", "{}", "[" * 5000))
    else:
        flat = tensor.clone().reshape(-1)
        if flat.numel() and tensor.is_floating_point():
            flat[rng.randrange(flat.numel())] = rng.choice((math.nan, math.inf, -1.0, 0.0, 1e30))
        tensors[name] = flat.reshape(tensor.shape)
    save_file(tensors, path, metadata=metadata)


_BY_ENDING: dict[str, tuple[Mutation, ...]] = {
    ".json": (change_json, change_json, change_json, swap_json_values, nest_json),
    ".jsonl": (change_json_line, change_json_line),
    ".yaml": (change_yaml, change_yaml, add_yaml),
    ".csv": (change_csv,),
    ".parquet": (change_parquet,),
    ".npy": (change_npy_header, change_npy_values),
    ".safetensors": (change_safetensors_header, change_tensors, change_tensors),
    ".st": (change_safetensors_header, change_tensors, change_tensors),
}
_BY_NAME: dict[str, tuple[Mutation, ...]] = {}
