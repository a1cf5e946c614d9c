"""A few hundred of the files that `python -m bench.fuzz` tries by the thousand."""

from bench.fuzz import FINDINGS, results
from tests.mutations import mutant, sound_files


def test_damaged_files_are_refused_or_decoded_and_nothing_else() -> None:
    found = list(results(first=1_000_000, count=300))
    assert len(found) == 300
    assert [one for one in found if one.outcome in FINDINGS] == []
    assert {"picture", "truncated"} <= {one.outcome for one in found}


def test_a_number_always_gives_the_same_file() -> None:
    assert [mutant(n).data for n in range(50)] == [mutant(n).data for n in range(50)]
    assert len({mutant(n).name for n in range(1000)}) == len(sound_files())
