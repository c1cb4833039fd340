"""The stock servers' merge client on a server's folder, as DAFNE.md section 2 tells of it."""

from dataclasses import replace

from dafne_dante.errors import ModelError
from dafne_dante.models.file import parse_model, write_model

__all__ = ["StockMerger"]


class StockMerger:
    """Takes the oldest upload as a full model, and averages it half and half with the newest version.

    What it cannot load, what is of another family, and what `dice` finds too low stays first and blocks the queue.
    """

    def __init__(self, shelf, model_type, scratch, *, dice=lambda model: 1.0, least_dice=0.5):
        self.shelf, self.type, self.scratch = shelf, model_type, scratch
        self.dice, self.least_dice = dice, least_dice

    def newest(self):
        version = self.shelf.versions(self.type)[-1]
        return parse_model(self.shelf.model_path(self.type, version).read_bytes())

    def merge_oldest(self):
        """ "merged", "stuck" at the oldest upload, or "idle"."""
        waiting = self.shelf.uploads(self.type)
        if not waiting:
            return "idle"
        path, canonical = self.shelf.upload_path(self.type, waiting[0].filename), self.newest()
        try:
            upload = parse_model(path.read_bytes())
        except ModelError:
            return "stuck"
        if upload.model_id != canonical.model_id or self.dice(upload) < self.least_dice:
            return "stuck"
        average = {name: 0.5 * tensor + 0.5 * upload.weights[name] for name, tensor in canonical.weights.items()}
        write_model(replace(canonical, weights=average), self.scratch / "merged.model")
        self.shelf.publish(self.type, self.scratch / "merged.model")
        path.unlink()
        return "merged"

    def merge_all(self):
        """What came of each until there is nothing left, or it is stuck."""
        answers = []
        while (answer := self.merge_oldest()) == "merged":
            answers.append(answer)
        return [*answers, answer]
