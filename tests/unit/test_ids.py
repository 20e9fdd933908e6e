"""Expert keys, job ids and the ids derived from a run."""

import re

import pytest
from perstack.core.ids import (
    MAX_EXPERT_KEY,
    cuid_from,
    delegate_workflow_id,
    is_job_id,
    parse_expert_key,
    segment_run_id,
)


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("a", ("a", None, None)),
        ("my-expert_2.x", ("my-expert_2.x", None, None)),
        ("@org/name", ("@org/name", None, None)),
        ("@o/a@1.0.0", ("@o/a", "1.0.0", None)),
        ("a@1.0.0-beta.1+build.5", ("a", "1.0.0-beta.1+build.5", None)),
        ("a@latest", ("a", None, "latest")),
        ("a@1.0", ("a", None, "1.0")),
    ],
)
def test_an_expert_key_has_a_name_and_a_version_or_a_tag(key: str, parts: tuple[str, str | None, str | None]) -> None:
    assert parse_expert_key(key) == parts


@pytest.mark.parametrize(
    "key",
    [
        "",
        "A",
        "@invalid",
        "@org/",
        "@/name",
        "a/b",
        "a@",
        "a@1.0.0@latest",
        "a b",
        "-a",
        "@Org/name",
        "a\n",
        "a@1.0.0\n",
        "a@latest\n",
        "\na",
        "a@1.0.0-é",
        "a@1.0.٣",
        "ä",
    ],
)
def test_anything_else_is_no_expert_key(key: str) -> None:
    assert parse_expert_key(key) is None


def test_a_key_is_as_long_as_allowed_and_no_longer() -> None:
    assert parse_expert_key("a" * MAX_EXPERT_KEY) is not None
    assert parse_expert_key("a" * (MAX_EXPERT_KEY + 1)) is None


def test_a_delegate_belongs_to_the_coordinator_of_its_scope() -> None:
    delegate, coordinator = parse_expert_key("@team/plan@1.0.0"), parse_expert_key("team")
    assert delegate is not None
    assert coordinator is not None
    assert (delegate.scope, delegate.short_name) == ("team", "plan")
    assert (coordinator.scope, coordinator.short_name) == (None, "team")


@pytest.mark.parametrize("text", ["a", "A-1_b", "x" * 128])
def test_a_job_id_is_letters_digits_dashes_and_underscores(text: str) -> None:
    assert is_job_id(text)


@pytest.mark.parametrize("text", ["", "x" * 129, "a/b", "a b", "a.b", "a\n", "\na", "ä", "٣"])
def test_anything_else_is_no_job_id(text: str) -> None:
    assert not is_job_id(text)


def test_a_derived_id_has_the_shape_of_a_cuid2_and_stays_the_same() -> None:
    made = {cuid_from("run", "event", number) for number in range(500)}
    assert len(made) == 500
    assert all(re.fullmatch(r"[a-z][a-z0-9]{23}", one) for one in made)
    # Ids are in histories: another derivation would change the events of every run there is.
    assert cuid_from("job-run", "checkpoint", 0) == "nar359k997jlpou8m18t7mbw"


def test_the_parts_of_a_derived_id_do_not_run_into_each_other() -> None:
    assert cuid_from("a", "b1") != cuid_from("ab", "1") != cuid_from("a", "b", 1)


def test_segments_have_ids_of_their_own_and_the_first_is_the_run() -> None:
    ids = [segment_run_id("run", segment) for segment in range(3)]
    assert ids[0] == "run"
    assert len(set(ids)) == 3
    assert segment_run_id("other", 1) != ids[1]


def test_a_delegates_workflow_is_named_by_job_and_run() -> None:
    assert delegate_workflow_id("job", "run") == "job/run"
