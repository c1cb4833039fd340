"""Fakes at the seams: stand-ins that behave, instead of patches."""

from pathlib import Path

from dafne_dante.host.protocol import API_VERSION, CurrentModel

__all__ = ["FakeHost", "FakeModelProvider"]


class FakeModelProvider:
    """Keeps the bytes of what it was offered."""

    def __init__(self):
        self.offered = {}

    def offer_model(self, model_type, file):
        self.offered[model_type] = Path(file).read_bytes()


class FakeHost:
    """A viewer without windows: background work waits until the test runs it."""

    def __init__(self, results, *, study=None, model=None, api_version=API_VERSION):
        self.api_version = api_version
        self.model_provider = FakeModelProvider()
        self.actions, self.subscriptions, self.notices, self.waiting = {}, [], [], []
        self._results, self._study, self._model = results, study, model

    def add_action(self, action_id, label, callback):
        self.actions[action_id] = (label, callback)

    def subscribe(self, event, callback):
        self.subscriptions.append((event, callback))

    def notify(self, text, severity):
        self.notices.append((severity, text))

    def run_in_background(self, work):
        self.waiting.append(work)

    def current_study(self):
        return self._study

    def current_model(self):
        return self._model and CurrentModel(self._model, "Heads")

    def result_folder(self):
        return self._results

    def choose(self, action_id):
        """What happens when the user chooses the action."""
        self.actions[action_id][1]()

    def finish_background(self):
        while self.waiting:
            self.waiting.pop(0)()
