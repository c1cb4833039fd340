"""What a person reads while a job runs: which training, which epoch, Dice so far, time left of the whole job."""

import pytest
from queues import WORKER, Jobs

from dafne_dante.host.dafne_qt.job_lines import job_lines
from dafne_dante.plugin.improvement_request import TrainingPart
from dafne_dante.plugin.worker_progress import JobProgress
from dafne_dante.training.history import EpochRecord

EPOCHS = 15


class Job:
    """A job with a clock that a test sets."""

    def __init__(self):
        self.now_s = 100.0
        self.far = JobProgress(lambda: self.now_s)

    def epochs(self, part, count, *, dice=None, each_s=2.0):
        self.far.training(part)
        for number in range(1, count + 1):
            self.now_s += each_s
            measured = {"mean": dice[number - 1] if dice else None}
            self.far.epoch(EpochRecord(part.done + number, 0.0, 0.5, None, measured), part.all_epochs)


def part(number, *, done=0, epochs=EPOCHS, of=3):
    return TrainingPart(number, of, epochs, done, of * EPOCHS)


@pytest.fixture
def job():
    return Job()


@pytest.fixture
def shown(tmp_path):
    """What the Activity window says of values that a worker told."""
    jobs = Jobs(tmp_path / "jobs")
    running = jobs.running()

    def told(values):
        jobs.queue.beat(running.job_id, WORKER, values)
        return job_lines(jobs.queue)[0].told

    return told


def test_training_epoch_dice_time_left_and_stage_are_shown_together(job, shown):
    job.now_s += 10
    job.epochs(part(1), EPOCHS)
    job.far.training(part(2, done=EPOCHS))
    job.far.stage("12 of 99 parameters move")
    job.epochs(part(2, done=EPOCHS), 5, dice=[0.1, 0.84, 0.3, 0.2, 0.5])
    told = shown(job.far.values)
    # 25 epochs of 2 s, and 10 s for measuring afterwards
    assert told == "training 2 of 3, epoch 5 of 15, Dice 0.84, 1 min left; 12 of 99 parameters move"
    assert job.far.values["left_s"] == 60.0


def test_the_time_left_is_of_all_trainings_and_of_what_follows(job):
    job.now_s += 10
    job.epochs(part(1), 5)
    assert job.far.values["left_s"] == 40 * 2.0 + 10
    job.epochs(part(2, done=EPOCHS), 1, each_s=2.0)
    assert job.far.values["left_s"] == 29 * 2.0 + 10
    job.epochs(part(3, done=2 * EPOCHS, epochs=4), 1)
    assert job.far.values["left_s"] == 3 * 2.0 + 10, "the last training is as long as the folds said"
    job.far.training(None)
    assert job.far.values["left_s"] == 10


def test_what_is_over_is_no_longer_told(job, shown):
    job.epochs(part(1), 2, dice=[0.5, 0.6])
    job.far.training(part(2, done=EPOCHS))
    job.far.stage("begins")
    assert shown(job.far.values).startswith("training 2 of 3, ")
    assert not {"epoch", "dice"} & job.far.values.keys()
    job.far.training(None)
    job.far.stage("measuring")
    assert shown(job.far.values) == "1 min left; measuring"


def test_one_training_is_not_counted(job, shown):
    job.epochs(TrainingPart(epochs=4, all_epochs=4), 3, dice=[0.1, 0.2, 0.15])
    assert shown(job.far.values) == "epoch 3 of 4, Dice 0.20, 1 min left"


def test_short_memory_stays_in_sight_and_all_is_counted_anew(job, shown):
    job.epochs(part(1), 5, dice=[0.1] * 5)
    job.far.fallback("graphics memory was too small: batches of 1 patch")
    job.far.stage("reading")
    assert shown(job.far.values) == "graphics memory was too small: batches of 1 patch; reading"
    job.now_s += 4
    job.epochs(part(1), 1, each_s=1.0)
    assert job.far.values["left_s"] == 44 * 1.0 + 4
    assert shown(job.far.values).endswith("; graphics memory was too small: batches of 1 patch; reading")


@pytest.mark.parametrize(
    "values",
    [
        {"epoch": "two", "epochs": None, "dice": "high"},
        {"training": 1.5, "trainings": [], "left_s": "soon"},
        {"left_s": float("nan"), "training_epoch": True},
        {"stage": ""},
    ],
)
def test_what_is_no_progress_is_not_shown(shown, values):
    assert shown(values) == ""


def test_a_worker_of_an_older_version_is_understood(shown):
    assert shown({"epoch": 3, "epochs": 20, "dice": 0.5, "left_s": 120.0}) == "epoch 3 of 20, Dice 0.50, 2 min left"
