"""What a LocalAnswerStore promises: one draw for a study and recipient, whoever asks and when."""

import json
import threading

import pytest

from bedside_core.errors import (
    BudgetExhaustedError,
    KeyReusedError,
    LedgerLockedError,
    NotFoundError,
)
from support.memory_answers import MemoryAnswers
from support.outputs import publishing_box
from support.state_houses import FolderHouse, arrival

WHO, CAP = "token:partner", 1_500_000


class Folder:
    """The store of a real state folder; opened again it is the same store."""

    def __init__(self, folder) -> None:
        self.house = FolderHouse(folder)
        self.state = self.house.open()

    def study(self, number: int) -> str:
        (done,) = self.state.studies.file(
            [arrival(self.state, f"1.2.{number}", study=f"1.{number}", patient=f"P{number}")]
        )
        query = "SELECT study_id FROM instances WHERE instance_id = ?"
        return self.state.database.read(
            lambda c: c.execute(query, (done.instance_id,)).fetchone()[0]
        )

    @property
    def store(self):
        return self.state.local_answers

    def restart(self) -> None:
        self.state.close()
        self.state = self.house.open()

    def close(self) -> None:
        self.state.close()


class Memory:
    """The simulator; what it holds survives."""

    def __init__(self, _folder) -> None:
        self.store = MemoryAnswers({})

    def study(self, number: int) -> str:
        self.store.truths[f"study-{number}"] = None
        return f"study-{number}"

    def restart(self) -> None:
        """Nothing is lost."""

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(params=[Folder, Memory], ids=["folder", "memory"])
def house(request, tmp_path):
    made = request.param(tmp_path)
    yield made
    made.close()


def test_an_answer_is_given_once_and_remembered_over_restarts(house):
    study = house.study(1)
    assert house.store.reserve(study, "l", "north", 1_000_000, CAP, WHO) is None
    house.restart()  # charged and not drawn: drawn now, without a second charge
    assert house.store.reserve(study, "l", "north", 1_000_000, CAP, WHO) is None
    assert house.store.finish(study, "l", "north", b"first", WHO) == b"first"
    assert house.store.finish(study, "l", "north", b"second", WHO) == b"first"
    house.restart()
    assert house.store.reserve(study, "l", "north", 1_000_000, CAP, "person:other") == b"first"
    assert house.store.spent(study) == 1_000_000


def test_labels_recipients_and_studies_have_answers_of_their_own(house):
    one, other = house.study(1), house.study(2)
    for study, label, recipient in ((one, "l", "a"), (one, "l", "b"), (one, "m", "a"),
                                    (other, "l", "a")):  # fmt: skip
        assert house.store.reserve(study, label, recipient, 10, CAP, WHO) is None
        said = f"{study} {label} {recipient}".encode()
        assert house.store.finish(study, label, recipient, said, WHO) == said
    assert (house.store.spent(one), house.store.spent(other)) == (30, 10)


def test_all_recipients_together_stay_within_the_study_s_cap(house):
    study = house.study(1)
    house.store.reserve(study, "l", "north", 1_000_000, CAP, WHO)
    with pytest.raises(BudgetExhaustedError):
        house.store.reserve(study, "l", "south", 500_001, CAP, WHO)
    assert house.store.spent(study) == 1_000_000  # a refusal costs nothing
    assert house.store.reserve(study, "l", "south", 500_000, CAP, WHO) is None
    with pytest.raises(BudgetExhaustedError):
        house.store.reserve(study, "l", "east", 1, CAP, WHO)
    assert house.store.reserve(study, "l", "north", 1_000_000, 0, WHO) is None  # charged already


def test_another_epsilon_gets_no_second_draw(house):
    study = house.study(1)
    house.store.reserve(study, "l", "north", 400, CAP, WHO)
    for epsilon in (399, 401):
        with pytest.raises(KeyReusedError):
            house.store.reserve(study, "l", "north", epsilon, CAP, WHO)
    assert house.store.spent(study) == 400


def test_what_was_not_charged_and_who_is_not_there_is_not_found(house):
    study = house.study(1)
    for call in (
        lambda: house.store.finish(study, "l", "north", b"x", WHO),
        lambda: house.store.truth(study),  # it has no result
        lambda: house.store.truth("nobody"),
        lambda: house.store.reserve("nobody", "l", "north", 1, CAP, WHO),
        lambda: house.store.spent("nobody"),
    ):
        with pytest.raises(NotFoundError):
            call()


def test_two_workers_who_finish_at_once_give_one_answer(house):
    study, said = house.study(1), []
    house.store.reserve(study, "l", "north", 10, CAP, WHO)
    start = threading.Barrier(4)

    def work(number: int) -> None:
        start.wait()
        said.append(house.store.finish(study, "l", "north", b"%d" % number, WHO))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(said)) == 1
    assert len(said) == 4


def test_what_a_restored_backup_may_have_forgotten_is_not_drawn_again(tmp_path):
    """Two draws of one answer would tell more than was agreed."""
    house = Folder(tmp_path)
    study = house.study(1)
    for recipient in ("north", "west"):
        house.store.reserve(study, "l", recipient, 10, CAP, WHO)
    house.store.finish(study, "l", "north", b"said", WHO)
    house.state.ledger.evidence_locked = lambda: True
    assert house.store.reserve(study, "l", "north", 10, CAP, WHO) == b"said"
    for recipient in ("west", "south"):
        with pytest.raises(LedgerLockedError):
            house.store.reserve(study, "l", recipient, 10, CAP, WHO)
    house.state.ledger.evidence_locked = lambda: False
    house.state.ledger.unlock("", "person:anna", "person:bela")
    assert house.store.reserve(study, "l", "north", 10, CAP, WHO) == b"said"
    for recipient in ("west", "south"):  # charged and perhaps drawn; perhaps charged and drawn
        with pytest.raises(BudgetExhaustedError):
            house.store.reserve(study, "l", recipient, 10, CAP, WHO)
    earlier = "UPDATE privacy_marks SET value = value - 1"  # as if it had come after the decision
    house.state.database.write(lambda c: c.execute(earlier))
    assert house.store.reserve(house.study(2), "l", "south", 10, CAP, WHO) is None
    house.close()


def test_the_truth_is_the_thresholded_label_of_the_standing_result(tmp_path):
    with publishing_box(tmp_path / "state") as box:
        result = box.state.jobs.result(box.analysed())
        value = json.loads(result.body)["value"]
        said = box.state.local_answers.truth(result.study_id)
    assert said is (value["probability"] >= value["threshold"])
