"""The command line against a real server: serve, improve --upload, merge; a key that leaks nowhere; Ctrl-C."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import nibabel
import numpy as np
import pytest
import requests
from phantoms import LABELS
from sites import snapshot, write_cases

from dafne_dante.annotations.folders import read_cases
from dafne_dante.annotations.holdout import hold_out
from dafne_dante.config import Settings, write_settings
from dafne_dante.federation.accounts import Accounts
from dafne_dante.federation.running import RunningServer
from dafne_dante.federation.shelf import Shelf
from dafne_dante.plugin.improve import CHECKPOINT

TYPE = "Brain"


class Place:
    """A server's folder with a type and users, and the configuration folder of whoever runs the command."""

    def __init__(self, root, trained):
        self.root, self.trained, self.shelf = root / "server", trained, Shelf(root / "server")
        self.shelf.add_type(TYPE, {"dafne_dante": {"delta": 1}})
        self.shelf.publish_copy(TYPE, trained / "base.model")
        self.key = Accounts(self.root).add_user("both", merge=[TYPE])
        self.configuration, self.out = root / "configuration", root / "out"

    def set_up(self, **settings):
        write_settings(Settings(folder=self.configuration, **{"api_key": self.key, "timeout_s": 20.0, **settings}))

    def improve(self, url, data=None, epochs=3):
        data = data or self.trained / "new"
        return (
            "improve", "--data", data, "--out", self.out, "--server", url, "--type", TYPE, "--epochs", epochs,
            "--upload", "--json",
        )  # fmt: skip

    def merge(self, *where):
        return ("merge", *where, "--type", TYPE, "--validation", self.trained / "new", "--json")

    def uploads(self):
        return self.shelf.uploads(TYPE)


@pytest.fixture
def place(tmp_path, trained):
    return Place(tmp_path, trained)


def swap_labels_of_training(data):
    """Make learning do harm: the training cases' labels are exchanged, those of the held-out case are not."""
    training, _ = hold_out(read_cases(data), seed=0)
    for path in sorted((data / "labelsTr").iterdir()):
        stored = nibabel.load(path)
        labels = np.asarray(stored.dataobj).astype(np.uint8)
        if any(np.array_equal(labels, case.segmentation) for case in training):
            nibabel.save(nibabel.Nifti1Image(np.array([0, 2, 1], np.uint8)[labels], stored.affine), path)
    return data


def kept(place):
    """The folders of models and of settings; without the server's digests and the operator's lock."""
    files = snapshot(place.root / "models") | snapshot(place.configuration)
    return {path: content for path, content in files.items() if path.suffix != ".sha256" and path.name != "lock"}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def start(*arguments, configuration):
    variables = {**os.environ, "DAFNE_DANTE_CONFIG": str(configuration)}
    return subprocess.Popen(
        [sys.executable, "-m", "dafne_dante", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=variables,
    )


def test_a_round_of_the_federation_leaks_no_key(command, place):
    place.set_up()
    told = []
    with RunningServer(place.root) as server:
        shown = json.loads(command("keys", "create", "--json")[1])
        for words in (
            ("keys", "trust", shown["public_key"], "--name", "B"),
            place.improve(server.url),
            ("publish", "adopt", place.shelf.versions(TYPE)[-1], "--server", server.url, "--type", TYPE),
            place.merge("--server", server.url),
        ):
            code, out, err = command(*words)
            assert code == 0, err
            told.append((out, err))
    summary, report = json.loads(told[1][0]), json.loads(told[3][0])
    assert (summary["gate"], summary["uploaded"]) == ("passed", True)
    assert (report["merged"], report["quarantined"]) == (1, [])
    assert report["version"] == place.shelf.versions(TYPE)[-1]
    assert report["dice_after"]["mean"] > report["dice_before"]["mean"]
    settings = place.configuration / "settings.toml"
    assert settings.stat().st_mode & 0o777 == 0o600
    secret = place.key.encode()
    files = snapshot(place.root.parent)
    assert [path.name for path, content in files.items() if secret in content] == ["settings.toml"]
    assert not any(place.key in text for pair in told for text in pair)


def test_merging_a_folder_quarantines_with_the_reason(command, place):
    place.set_up()
    (place.root.parent / "junk").write_bytes(b"no delta")
    place.shelf.receive(TYPE, "b", place.root.parent / "junk")
    code, out, err = command(*place.merge("--folder", place.root))
    report = json.loads(out)
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert report["version"] is None
    assert len(report["quarantined"]) == 1
    assert place.uploads() == []
    assert "no update waits" in command(*place.merge("--folder", place.root)[:-1])[1]


def test_what_fails_the_gate_is_not_sent_and_ends_with_1(command, place):
    place.set_up()
    data = swap_labels_of_training(write_cases(place.root.parent / "cases", range(10, 14)))
    with RunningServer(place.root) as server:
        code, out, err = command(*place.improve(server.url, data, epochs=4))
    assert code == 1
    assert json.loads(out)["gate"] == "failed"
    assert "nothing was sent" in err.splitlines()[-1]
    assert (place.out / "update.delta").is_file()
    assert place.uploads() == []


@pytest.mark.parametrize(
    ("settings", "reason"), [({"api_key": "wrong"}, "401"), ({"api_key": ""}, "API key"), ({}, "no answer")]
)
@pytest.mark.parametrize("words", ["improve", "merge"])
def test_a_server_that_is_down_or_a_wrong_key_changes_nothing(command, place, settings, reason, words):
    place.set_up(**settings)
    before = kept(place)
    with RunningServer(place.root) as server:
        url = f"http://127.0.0.1:{free_port()}/" if reason == "no answer" else server.url
        arguments = place.improve(url) if words == "improve" else place.merge("--server", url)
        code, out, err = command(*arguments)
    assert (code, out) == (1, "")
    assert reason in err.splitlines()[-1]
    assert str(place.root.parent) not in err
    assert place.key not in err
    assert kept(place) == before
    assert not place.out.exists()


def test_serve_answers_until_ctrl_c(place):
    port = free_port()
    process = start("serve", "--root", place.root, "--port", port, configuration=place.configuration)
    try:
        assert f":{port}/" in process.stderr.readline()
        deadline = time.monotonic() + 30
        while True:
            try:
                body = {"api_key": place.key, "model_type": TYPE}
                answer = requests.post(f"http://127.0.0.1:{port}/info_model", json=body, timeout=60)
                break
            except requests.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        assert answer.json()["latest_timestamp"] == place.shelf.versions(TYPE)[-1]
        assert answer.json()["dafne_dante"] == {"delta": 1}
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (out, "Traceback" in err, place.key in err) == ("", False, False)


def test_serve_on_a_port_that_is_taken_says_only_that(command, place):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code, out, err = command("serve", "--root", place.root, "--port", port)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert str(port) in err


def test_ctrl_c_ends_a_training_with_one_line_and_no_half_result(place):
    process = start(
        "improve", "--data", place.trained / "new", "--base", place.trained / "base.model", "--out", place.out,
        "--epochs", 5000, "--method", "lora", configuration=place.configuration,
    )  # fmt: skip
    try:
        assert "took 4 cases" in process.stderr.readline()
        assert "held out" in process.stderr.readline()
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    *before, last = err.splitlines()
    assert (process.returncode, out, last) == (130, "", "stopped")
    # What training is about to move is told about when the signal comes, now before it and now after.
    assert len(before) <= 1
    assert all("numbers move" in line for line in before)
    # An epoch that was over leaves what --resume goes on from, and nothing else does.
    assert not place.out.exists() or {path.name for path in place.out.iterdir()} == {CHECKPOINT}


LIMITED = (
    "import resource, signal\n"
    "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
    "from dafne_dante.cli import main\n"
    "main()\n"
)


@pytest.mark.parametrize(
    ("name", "limit"), [("apply", 30_000), ("predict", 50), ("train", 30_000), ("publish", 30_000)]
)
def test_a_disk_that_is_full_leaves_what_was_there(command, place, trained, name, limit):
    folder = place.root.parent
    (folder / "old.model").write_bytes(b"of another day")
    (folder / "old.nii.gz").write_bytes(b"of another day")
    image = trained / "own" / "imagesTr" / "c11_0000.nii.gz"
    if name == "apply":
        base = ("--base", trained / "base.model")
        assert command("improve", *base, "--data", trained / "new", "--out", place.out, "--epochs", 1)[0] == 0
    words = {
        "apply": ("--base", trained / "base.model", "--delta", place.out / "update.delta", "--out",
                  folder / "old.model"),
        "predict": ("--model", trained / "base.model", "--image", image, "--out", folder / "old.nii.gz"),
        "train": ("--data", trained / "new", "--out", folder / "trained", "--epochs", 1),
        "publish": ("--root", place.root, "--type", TYPE, "--model", trained / "base.model"),
    }[name]  # fmt: skip
    place.configuration.mkdir(exist_ok=True)
    before = kept(place)
    run = subprocess.run(
        [sys.executable, "-c", LIMITED.format(limit=limit), name, *map(str, words)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "DAFNE_DANTE_CONFIG": str(place.configuration)},
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (1, ""), run.stderr
    assert "cannot write" in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr
    assert str(folder) not in run.stderr
    assert (folder / "old.nii.gz").read_bytes() == b"of another day"
    assert not (folder / "trained").exists()
    assert (folder / "old.model").read_bytes() == b"of another day"
    assert {path.name for path in kept(place)} - {"signing_key", "hardware.json"} == {path.name for path in before} - {
        "signing_key",
        "hardware.json",
    }


def test_the_operators_folder_may_name_the_labels_in_another_order(command, place):
    """nnU-Net folders number labels as they like; `merge` matches them by name."""
    place.set_up()
    data = write_cases(place.root.parent / "validation", (5, 6))
    for path in sorted((data / "labelsTr").iterdir()):
        stored = nibabel.load(path)
        labels = np.array([0, 2, 1], np.uint8)[np.asarray(stored.dataobj).astype(np.uint8)]
        nibabel.save(nibabel.Nifti1Image(labels, stored.affine), path)
    names = {"background": 0, LABELS[0]: 2, LABELS[1]: 1}
    (data / "dataset.json").write_text(json.dumps({"labels": names, "file_ending": ".nii.gz"}))
    code, out, err = command("merge", "--folder", place.root, "--type", TYPE, "--validation", data, "--json")
    assert (code, json.loads(out)["reason"]) == (0, "no update waits"), err
