"""The real Dafne client with the plugin against the embedded server: from a correction to a delta on the server."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import pytest
from phantoms import make_case
from sites import NEW_SCANNER, train_model

from dafne_dante.annotations.store.opening import open_case_store
from dafne_dante.config import Settings, WorkerSettings, load_settings, write_settings
from dafne_dante.delta.signing import ensure_signing_key, public_key_text
from dafne_dante.federation.accounts import Accounts
from dafne_dante.federation.audit import AuditLog
from dafne_dante.federation.running import RunningServer
from dafne_dante.federation.shelf import Shelf

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore"),
    # Importing Dafne would ask for packages; only the sessions do, in processes of their own.
    pytest.mark.skipif(importlib.util.find_spec("dafne") is None, reason="Dafne is not installed here"),
]

MODEL = "Phantom"
DRIVE = Path(__file__).parent / "drive.py"
MOST_MS = 50.0


def prepare(folder, url):
    """A study, a published model, a site's settings and an account; nothing of the person's own is touched."""
    case = make_case(31, **NEW_SCANNER)
    nibabel.save(nibabel.Nifti1Image(case.image[0], case.affine), folder / "study.nii.gz")
    nibabel.save(nibabel.Nifti1Image(case.segmentation, case.affine), folder / "reference.nii.gz")
    train_model(folder / "first.model")
    accounts, shelf = Accounts(folder / "server"), Shelf(folder / "server")
    key = accounts.add_user("site", access=[MODEL], merge=[])
    operator = public_key_text(ensure_signing_key(folder / "operator"))
    shelf.add_type(
        MODEL,
        {"categories": ["ball", "box"], "dimensionality": "3", "dafne_dante": {"delta": 1, "operator_key": operator}},
    )
    shelf.publish_copy(MODEL, folder / "first.model")
    worker = WorkerSettings(threads=1, after_save_s=1.0)
    write_settings(Settings(folder / "configuration", server=url, api_key=key, worker=worker))
    (folder / "server.json").write_text(json.dumps({"url": url, "api_key": key}))
    flexidep = folder / "home" / "com.francescosantini.flexidep"
    flexidep.mkdir(parents=True)
    (flexidep / "network.dafne.dafne_ignored_packages.txt").write_text("radiomics\n")
    return shelf


def drive(folder, session):
    home = str(folder / "home")
    environment = {
        **os.environ, "HOME": home, "XDG_CONFIG_HOME": home, "XDG_DATA_HOME": home, "XDG_CACHE_HOME": home,
        "QT_QPA_PLATFORM": "offscreen", "MPLBACKEND": "Qt5Agg", "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3",
        "DAFNE_DANTE_CONFIG": str(folder / "configuration"),
    }  # fmt: skip
    log = folder / f"{session}.log"
    with log.open("wb") as stream:
        subprocess.run(
            [sys.executable, str(DRIVE), str(folder), session], env=environment, stdin=subprocess.DEVNULL, timeout=600,
            stdout=stream, stderr=subprocess.STDOUT, start_new_session=True, check=False,
        )  # fmt: skip
    told = folder / f"{session}.json"
    last = log.read_text(errors="replace")[-4000:]
    assert told.is_file(), last
    seen = json.loads(told.read_text())
    assert "error" not in seen, f"{seen} {last}"
    return seen


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    chosen = os.environ.get("DAFNE_CLIENT_FOLDER")
    folder = Path(chosen) if chosen else tmp_path_factory.mktemp("dafne")
    folder.mkdir(exist_ok=True)
    with RunningServer(folder / "server") as server:
        shelf = prepare(folder, server.url)
        first = drive(folder, "first")
        second = drive(folder, "second")
        keep_pictures(folder)
        yield folder, shelf, first, second


def keep_pictures(folder):
    """For people to look at, where DAFNE_PICTURES says; the pages as pictures too where there is a Chromium."""
    if not os.environ.get("DAFNE_PICTURES"):
        return
    target = Path(os.environ["DAFNE_PICTURES"]).absolute()
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder / "pictures", target)
    report = next((folder / "configuration" / "jobs").glob("*/out/report.html"))
    shutil.copyfile(report, target / "report.html")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    for page in target.glob("*.html") if chromium else ():
        subprocess.run(
            [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1100,2400",
             f"--screenshot={page.with_suffix('.png')}", page.as_uri()], check=False, capture_output=True, timeout=120,
        )  # fmt: skip


def test_dafne_segments_with_the_published_model_and_saves_as_ever(sessions):
    _, _, first, _ = sessions
    assert first["segmented"] == ["ball", "box"]
    assert first["saved_by_dafne"]


def test_a_save_becomes_a_case_with_what_was_drawn_and_a_job_that_improves(sessions):
    folder, _, first, _ = sessions
    settings = load_settings(folder / "configuration", environment={})
    store = open_case_store(settings, say=print)
    (case,) = [store.read(one.case_id) for one in store.cases()]
    assert sorted(case.labels) == ["ball", "box"]
    assert (case.segmentation > 0).sum() == first["drawn"] > 400
    assert 4 <= case.annotated.sum() < case.annotated.size
    assert first["trigger"] == "saved" and first["ended"]
    assert first["job"][0] == "done"


def test_the_delta_is_on_the_server_and_in_the_audit_log(sessions):
    folder, shelf, _, _ = sessions
    uploads = shelf.uploads(MODEL)
    assert uploads, "the job's delta"
    settings = load_settings(folder / "configuration", environment={})
    assert AuditLog(settings.folder / "audit").verify() is not None


def test_dafne_asks_nobody_to_learn_in_its_own_way(sessions):
    assert "asked" not in sessions[2], sessions[2].get("asked")


def test_the_person_sees_what_came_of_it_and_chooses(sessions):
    first = sessions[2]
    assert first["status"].startswith(f"{MODEL}: improved ") and first["status"].endswith("sent")
    assert first["report"] and first["comparison"] > 10_000
    paused, going_on = first["paused"]
    assert paused.startswith("Dante is paused.") and "paused" not in going_on
    assert first["threads"] == 2
    assert "global model is used" in first["back"] and "improved here" in first["forth"]


def test_a_job_is_cancelled_within_five_seconds(sessions):
    state, seconds = sessions[2]["cancelled"]
    assert state == "cancelled" and seconds <= 6.0


def test_a_job_goes_on_when_dafne_is_closed_and_is_there_afterwards(sessions):
    second = sessions[3]
    assert second["ended"] and second["job"][0] == "done"


def test_dafne_loads_the_improved_model(sessions):
    second = sessions[3]
    assert second["weight"] == pytest.approx(second["improved_weight"], rel=1e-9)


def test_there_are_pictures_of_every_window(sessions):
    names = {path.stem for path in (sessions[0] / "pictures").iterdir() if path.stat().st_size > 1000}
    assert names >= {"toolbox", "dialog", "settings", "compare", "comparison", "activity", "activity-running"}


def test_the_window_is_never_held_up_by_us(sessions):
    first = sessions[2]
    held = {name: gap for name, gap in first.items() if name.startswith("gap_")}
    assert len(held) == 5
    assert all(gap <= MOST_MS for gap in held.values()), held
