"""Nothing in a JSON file is passed over without a word, whatever its shape."""

import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ualm_jax.data.raw import json_records
from ualm_jax.data.raw.json_records import JsonRecords
from ualm_jax.data.raw.sound_source import BadRecord
from ualm_jax.errors import UserError


def records_of(tmp_path, content: str | bytes) -> JsonRecords:
    path = tmp_path / "raw.json"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return JsonRecords(path)


def values(records: JsonRecords) -> list:
    """What each record holds, or why it can not be used."""
    result = []
    for index in range(len(records)):
        try:
            result.append(records[index]["n"])
        except BadRecord as error:
            result.append(str(error).partition(": ")[2])
    return result


BOM = "\ufeff"
SHAPES = {
    "lines": '{"n": 1}\n{"n": 2}\n{"n": 3}\n',
    "lines-behind-bom": BOM + '{"n": 1}\n{"n": 2}\n{"n": 3}',
    "two-files-with-bom": BOM + '{"n": 1}\n{"n": 2}\n' + BOM + '{"n": 3}\n' + BOM,
    "carriage-returns": '{"n": 1}\r\n\r\n{"n": 2}\r\n{"n": 3}\r\n',
    "list": '[{"n": 1}, {"n": 2},\n {"n": 3}]\n',
    "list-behind-bom": BOM + ' \n[{"n": 1}, {"n": 2}, {"n": 3}]',
    "two-lists": '[{"n": 1}, {"n": 2}]\n[{"n": 3}]\n',
    "two-lists-in-a-line": '[{"n": 1}, {"n": 2}][{"n": 3}]',
    "two-lists-with-bom": BOM + '[{"n": 1}, {"n": 2}]' + BOM + '[{"n": 3}]',
    "a-list-a-line": '[{"n": 1}]\n[]\n[{"n": 2}, {"n": 3}]',
    "a-list-and-lines": '[{"n": 1}]\n{"n": 2}\n{"n": 3}\n',
}


@pytest.mark.parametrize("shape", SHAPES)
def test_all_records_are_there_in_whatever_shape(tmp_path, shape):
    assert values(records_of(tmp_path, SHAPES[shape])) == [1, 2, 3]


BAD = {
    '[{"n": 1}] that was all': [1, "not valid JSON", "not valid JSON", "not valid JSON"],
    '[{"n": 1}, 2, "three", null, [{"n": 4}]]': [1] + [f"expected a JSON object, found {kind}" for kind in
                                                       ("int", "str", "NoneType", "list")],
    '[{"n": 1}]]': [1, "not valid JSON"],
    '{"n": 1}\n[{"n": 2}]\n': [1, "expected a JSON object, found list"],
    '{"n": 1} {"n": 2}\n': ["not valid JSON"],
    '{"n": 1}\n# end\n': [1, "not valid JSON"],
    '{"n": 1, "n": 2}\n{"n": {"a": 1, "b": 2, "a": 1}}\n': ["not valid JSON (it has the field 'n' twice)",
                                                           "not valid JSON (it has the field 'a' twice)"],
    '[{"n": 1}, {"n": }, {"n": 3}]': [1, "not valid JSON", 3],
}  # fmt: skip


@pytest.mark.parametrize("content", BAD)
def test_what_is_no_record_is_a_bad_record(tmp_path, content):
    found = values(records_of(tmp_path, content))
    assert len(found) == len(BAD[content])
    for value, expected in zip(found, BAD[content], strict=True):
        assert value == expected or str(value).startswith(str(expected)), found


def test_places_are_counted_over_all_lists(tmp_path):
    records = records_of(tmp_path, '[{"n": 1}, {"n": 2}]\n[{"n": 3}, 4]')
    assert records.where(2).endswith("raw.json entry 3")
    with pytest.raises(BadRecord, match="raw.json entry 4: expected a JSON object, found int"):
        records[3]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.lists(json_values, max_size=4), min_size=1, max_size=3),
    st.sampled_from(["", "\n", " ", BOM]),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.sampled_from([1, 2, 3, 7, 64]),
)
def test_every_entry_is_found_wherever_the_file_is_cut_into_chunks(lists, between, indent, ascii, chunk):
    content = between.join(json.dumps(each, indent=indent, ensure_ascii=ascii) for each in lists)
    data = content.encode("utf-8", "replace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_records, "_CHUNK", chunk)
        places = list(json_records._Entries(io.BytesIO(data), "raw.json"))
    expected = [value for each in lists for value in json.loads(json.dumps(each).encode("utf-8", "replace"))]
    assert [json.loads(data[start:end].decode("utf-8", "replace")) for start, end in places] == expected


def test_what_can_not_be_read_at_all_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"is a folder; name the JSON or JSONL file in it"):
        JsonRecords(tmp_path)
    with pytest.raises(UserError, match="none.json: there is no such manifest"):
        JsonRecords(tmp_path / "none.json")
    for content, reason in {
        '[{"n": 1}][{"n": 2}, ': "a JSON list is not closed",
        '[{"n": "1]': "a JSON list is not closed",
        "[]": "the manifest is empty",
        BOM: "the manifest is empty",
        '{"n": 1}'.encode("utf-16"): "is UTF-16; expected JSON as plain UTF-8 text",
        b"\x1f\x8b\x08": "is compressed; expected JSON",
    }.items():
        with pytest.raises(UserError, match=reason):
            records_of(tmp_path, content)
