"""The doctor finds what is wrong, and says what to do: a dead server, an opened TLS, a wrong key, a slow clock."""

import json
import time
from dataclasses import replace
from email.utils import formatdate

import pytest
from fake_network import Authority
from fake_servers import FakeServer, answer
from outboxes import Place
from queues import TYPE as QUEUED
from queues import Jobs

from dafne_dante.config import Settings, load_settings, write_settings
from dafne_dante.federation.accounts import Accounts
from dafne_dante.federation.outbox import outbox_folder
from dafne_dante.federation.running import RunningServer
from dafne_dante.federation.shelf import Shelf
from dafne_dante.plugin.doctor.machine_checks import check_dafne, check_device, check_disk, check_python
from dafne_dante.plugin.doctor.server_checks import check_server
from dafne_dante.plugin.doctor.work_checks import (
    check_jobs,
    check_local_models,
    check_outbox,
    check_scheduler,
    check_settings,
    check_signing_key,
)
from dafne_dante.plugin.jobs import jobs_folder
from dafne_dante.plugin.local.shelf import local_folder

KEY = "0123abcd.secretsecret"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "HTTP_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def server(tmp_path, trained):
    shelf = Shelf(tmp_path / "server")
    shelf.add_type("Brain", {"dafne_dante": {"delta": 1}})
    shelf.add_type("Thigh", {})
    shelf.publish_copy("Brain", trained / "base.model")
    with RunningServer(tmp_path / "server") as running:
        yield running


def seen(findings):
    return {one.name: (one.state, one.found) for one in findings}


def at(seconds, content=b'{"models": ["Brain"]}'):
    """An answer from a server whose clock is off."""

    def step(handler):
        handler.send_response_only(200)
        handler.send_header("Date", formatdate(time.time() + seconds, usegmt=True))
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return step


def settings_for(tmp_path, url, **changes):
    return replace(Settings(folder=tmp_path / "c", server=url, api_key=KEY, timeout_s=3.0), **changes)


def test_a_server_that_is_well(tmp_path, server):
    accounts = Accounts(tmp_path / "server")
    site = accounts.add_user("site", access=["Brain"])
    found = seen(check_server(settings_for(tmp_path, server.url, api_key=site)))
    assert [state for state, _ in found.values()] == ["good"] * 5
    assert found["permissions"][1] == "Brain (takes deltas)"
    operator = accounts.add_user("operator", merge=["Brain", "Thigh"])
    found = seen(check_server(settings_for(tmp_path, server.url, api_key=operator)))
    assert found["permissions"][1] == "Brain (takes deltas, may merge), Thigh (no version yet, may merge)"


@pytest.mark.parametrize(
    ("key", "words"), [(KEY, "does not take it"), ("", "expected an API key"), ("nobody", "for no model type")]
)
def test_a_wrong_key(tmp_path, server, key, words):
    if key == "nobody":
        key = Accounts(tmp_path / "server").add_user("nobody")
    findings = check_server(settings_for(tmp_path, server.url, api_key=key))
    found = seen(findings)
    assert found["key"][0] == "fault"
    assert words in found["key"][1]
    assert KEY not in str(findings)
    assert all(one.advice for one in findings if one.state == "fault")


def test_a_dead_server(tmp_path):
    with FakeServer(answer(b"")) as server:
        url = server.url
    (finding,) = check_server(settings_for(tmp_path, url))
    assert (finding.name, finding.state) == ("server", "fault")
    assert "network" in finding.advice


@pytest.mark.parametrize("url", ["http://example.org/", "https://", "https://me:word@host/"])
def test_an_address_that_is_none(tmp_path, url):
    (finding,) = check_server(settings_for(tmp_path, url))
    assert (finding.name, finding.state) == ("server", "fault")
    assert "word" not in finding.found


@pytest.mark.parametrize(("seconds", "words"), [(1200, "20 minutes behind"), (-7200, "120 minutes ahead of")])
def test_a_clock_that_is_off(tmp_path, seconds, words):
    with FakeServer(at(seconds)) as server:
        found = seen(check_server(settings_for(tmp_path, server.url)))
    assert found["clock"] == ("fault", f"{words} the server's")


@pytest.mark.parametrize("date", ["yesterday", "", "Mon, 99 Foo 99999 00:00:00 GMT"])
def test_a_clock_that_says_nothing(tmp_path, date):
    def step(handler):
        handler.send_response_only(200)
        handler.send_header("Date", date)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with FakeServer(step) as server:
        found = seen(check_server(settings_for(tmp_path, server.url)))
    assert found["clock"][0] == "warning"
    assert "could not be tried" in found["key"][1]


def test_a_proxy_that_opens_tls_is_recognised_and_then_trusted(tmp_path):
    box = Authority(tmp_path, "Hospital Web Filter")
    with FakeServer(at(0), context=box.context("127.0.0.1")) as server:
        (finding,) = check_server(settings_for(tmp_path, server.url))
        assert (finding.name, finding.state) == ("certificate", "fault")
        assert 'issued by "Hospital Web Filter"' in finding.found
        assert "ca_bundle" in finding.advice
        found = seen(check_server(settings_for(tmp_path, server.url, ca_bundle=box.path)))
    assert found["certificate"][0] == "good"
    assert '"Hospital Web Filter", an authority that this site added' in found["certificate"][1]


def test_a_key_that_the_keyring_does_not_give(tmp_path, server):
    settings = replace(settings_for(tmp_path, server.url), api_key="", key_fault="expected a key, found none")
    *_, last = check_server(settings)
    assert (last.name, last.state, last.found) == ("key", "fault", "expected a key, found none")
    assert "unlock the keyring" in last.advice


def test_without_a_server(tmp_path):
    (finding,) = check_server(Settings(folder=tmp_path))
    assert finding.state == "warning"


def test_the_machine(tmp_path, monkeypatch):
    assert check_python().state == "good"
    assert check_python((3, 9, 1)).state == check_python(bits=32).state == "fault"
    assert "torch" in check_device().name
    free = {"free": 100 << 30}
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), free))
    states = []
    for gib in (100, 3, 0.5):
        free["free"] = int(gib * 2**30)
        states.append(check_disk(Settings(folder=tmp_path / "not" / "there")).state)
    assert states == ["good", "warning", "fault"]


@pytest.mark.parametrize(
    ("version", "state"),
    [("2.1.0a3", "good"), ("2.9", "good"), ("2.0.4", "fault"), ("1.8a4", "fault"), ("3.0", "fault"), ("", "warning")],
)
def test_dafne_in_another_environment(tmp_path, version, state):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{f'echo {version}' if version else 'exit 1'}\n")
    python.chmod(0o755)
    assert check_dafne(python).state == state
    assert check_dafne(tmp_path / "none").state == "warning"


class Refusing:
    """A scheduler that knows of nothing."""

    def run(self, command, given=""):
        from dafne_dante.plugin.schedule.setting_up import Answer

        return Answer(False, "no crontab for you")


def test_what_is_under_way(tmp_path):
    settings = Settings(folder=tmp_path)
    assert [check(settings).state for check in (check_jobs, check_outbox, check_local_models)] == ["good"] * 3
    assert check_signing_key(settings).state == "good"
    assert check_scheduler(settings, Refusing()).state == "warning"
    Place(outbox_folder(settings)).queue()
    outbox = check_outbox(settings)
    assert (outbox.state, outbox.found) == ("warning", "1 waiting")
    jobs = Jobs(jobs_folder(settings))
    job = jobs.queue.add(QUEUED, "nightly")
    assert check_jobs(settings).found == "1 queued"
    holder = "a 1 1 0"
    jobs.queue.claim(job.job_id, holder)
    jobs.queue.finish(job.job_id, holder, "failed", "no cases")
    failed = check_jobs(settings)
    assert (failed.state, QUEUED in failed.found) == ("warning", True)
    (tmp_path / "signing_key").write_text("no key")
    (tmp_path / "signing_key").chmod(0o600)
    assert check_signing_key(settings).state == "fault"
    (local_folder(settings) / "x").mkdir(parents=True)
    assert check_local_models(settings).state == "good"


def test_a_key_that_others_can_read(tmp_path):
    write_settings(Settings(folder=tmp_path, api_key=KEY))
    assert check_settings(load_settings(tmp_path, {})).state == "good"
    (tmp_path / "settings.toml").chmod(0o644)
    assert check_settings(load_settings(tmp_path, {})).state == "fault"
    assert check_settings(Settings(folder=tmp_path / "none")).state == "warning"


def test_the_command_tells_a_person_and_a_program(command, tmp_path):
    code, out, _ = command("doctor", "--json")
    told = json.loads(out)
    assert (code, told["well"]) == (0, True)
    names = [one["name"] for one in told["findings"]]
    assert names[:4] == ["settings", "python", "torch", "disk"]
    assert {"dafne", "server", "scheduler", "jobs", "outbox", "signing key", "improved models"} <= set(names)
    code, out, _ = command("--set", "retries=-1", "--set", "timeout_s=x", "doctor")
    assert code == 1
    assert "FAIL  settings:" in out
    assert "retries must be" in out
    assert "timeout_s must be" in out
    assert "->" in out
