"""The feature matrix, the tests that carry its ids and the README's table agree."""

import requirements


def test_every_id_a_test_carries_is_a_row_of_the_matrix() -> None:
    carried = {proof.requirement_id: proof.test for proof in requirements.proofs()}
    assert {key: test for key, test in carried.items() if key not in requirements.KNOWN} == {}


def test_ids_are_unique() -> None:
    assert len(requirements.KNOWN) == len(requirements.REQUIREMENTS) + len(requirements.OF_PROVIDERS)


def test_the_status_table_in_the_readme_is_current() -> None:
    readme = requirements.README.read_text()
    assert requirements.BEGIN in readme
    assert readme == requirements.with_table(readme), "run `make docs`"


def test_the_matrix_of_the_providers_is_current() -> None:
    page = requirements.PROVIDERS_PAGE.read_text()
    assert requirements.BEGIN in page
    assert page == requirements.with_matrix(page), "run `make docs`"


def test_a_row_counts_only_when_a_test_on_a_real_server_or_a_core_row_carries_it() -> None:
    carried = {proof.requirement_id for proof in requirements.proofs()}
    for name in carried - requirements.proved():
        assert requirements.KNOWN[name].proved_by == "server"
