import yaml

from schemas.manifest import dataset_card, differences, fingerprint


def test_fingerprint_is_of_the_content() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_differences_name_the_place() -> None:
    before = {"seed": 0, "files": [{"name": "a", "size": 1}], "gone": True}
    now = {"seed": 1, "files": [{"name": "a", "size": 2}], "new": "x"}
    assert [str(each) for each in differences(before, now)] == [
        "seed: 0 -> 1",
        "files[a].size: 1 -> 2",
        "gone: true -> null",
        'new: null -> "x"',
    ]
    assert [str(each) for each in differences([1], [1, 2], ("list",))] == ["list: 1 entries -> 2 entries"]
    assert [str(each) for each in differences([1, 2], [1, 3], ("list",))] == ["list[1]: 2 -> 3"]
    assert [str(each) for each in differences(now, now)] == []


def test_differences_of_lists_name_their_entries() -> None:
    a, b, c = ({"name": name, "size": 1} for name in "abc")
    assert [str(each) for each in differences([a, b], [b, c, a], ("files",))] == [
        "files[c]: missing -> present",
        "files: different order",
    ]
    assert [str(each) for each in differences([a], [], ("files",))] == ["files[a]: present -> missing"]
    assert [str(each) for each in differences([a, a], [a, {**a, "size": 2}], ("files",))] == ["files[1].size: 1 -> 2"]


def test_card_front_matter_is_yaml() -> None:
    card = dataset_card("A title", "Text.", {"pairs": "pairs/*.parquet", "rejects": "rejects/*.parquet"})
    _, front, text = card.split("---\n")
    assert yaml.safe_load(front)["configs"] == [
        {"config_name": "pairs", "data_files": "pairs/*.parquet", "default": True},
        {"config_name": "rejects", "data_files": "rejects/*.parquet"},
    ]
    assert text.startswith("# A title")
