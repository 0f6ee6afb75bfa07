"""The actions of the Generate tab for programs: numbers and words in, JSON with pictures in base64 out."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ddm.commands.studio import costing, generating
from ddm.commands.studio.denoising import side_by_side
from ddm.commands.studio.generating import Moment, Picture, Request
from ddm.commands.studio.shared import Studio
from ddm.commands.studio.shown import png
from ddm.runs.model import Model


@dataclass(frozen=True, eq=False)
class Endpoints:
    """Every method is an endpoint, and raises DdmError for what cannot be done.

    Args:
        studio: its models and limits.
    """

    studio: Studio

    def models(self) -> list[dict]:
        """The models of this studio that have a checkpoint, as they make pictures if they are not told otherwise."""
        return [self._facts(name, model) for name, model in self.studio.models.ready()]

    def generate(
        self,
        model: str,
        label: str = "",
        count: int = 1,
        seed: int = 0,
        sampler: str = "",
        grid: str = "",
        evaluations: int = 0,
        guidance: float | None = None,
    ) -> Iterator[dict]:
        """Pictures of seeds. Every step gives ``done``, ``steps`` and a ``preview``, the end ``pictures``.

        Args:
            model: its name.
            label: the class; all in turn by default.
            count: pictures, 1 to 64.
            seed: of the first picture, the next has the next.
            sampler: a choice such as heun(churn=40); the model's own by default.
            grid: a choice such as karras(rho=5); the model's own by default.
            evaluations: of the network for a picture; as the model is set by default.
            guidance: how far towards the class, 1 for none; as the model is set by default.

        Yields:
            JSON; pictures are PNG files in base64, which say how they were made.
        """
        request = Request(model, label, count, seed, sampler, grid, evaluations or None, guidance)
        yield from map(_moment, generating.generate(self.studio, request))

    def near(
        self,
        model: str,
        seed: int = 0,
        count: int = 8,
        share: float = 0.15,
        label: str = "",
        sampler: str = "",
        grid: str = "",
        evaluations: int = 0,
        guidance: float | None = None,
    ) -> Iterator[dict]:
        """Pictures near that of a seed: its noise goes a share of the way to that of other seeds. Answers as generate.

        Args:
            model: its name.
            seed: of the picture in the middle.
            count: pictures, 1 to 16.
            share: of the way, 0.01 to 1.
            label: the class; that of the seed by default.
            sampler: a choice such as heun(churn=40); the model's own by default.
            grid: a choice such as karras(rho=5); the model's own by default.
            evaluations: of the network for a picture; as the model is set by default.
            guidance: how far towards the class, 1 for none; as the model is set by default.
        """
        request = Request(model, label, count, seed, sampler, grid, evaluations or None, guidance)
        yield from map(_moment, generating.near(self.studio, request, share=share))

    def _facts(self, name: str, model: Model) -> dict[str, Any]:
        generator: Any = model.generator
        return {
            "name": name,
            "shape": list(generator.shape),
            "classes": list(model.classes),
            "step": model.step,
            "sha256": model.digest,
            "evaluations": costing.evaluations(generator),
            **generator.settings(),
        }


def _moment(moment: Moment) -> dict[str, Any]:
    """Plain values; strict JSON, which has no infinity."""
    if not moment.finished:
        preview = torch.stack([each.pixels for each in moment.pictures])
        return {"done": moment.done, "steps": moment.steps, "preview": _text(png(side_by_side(preview)))}
    settings = json.loads(json.dumps(moment.model.generator.settings()))
    pictures = [_picture(each) for each in moment.pictures]
    return {"done": moment.steps, "steps": moment.steps, "settings": settings, "pictures": pictures}


def _picture(picture: Picture) -> dict[str, Any]:
    return {
        "seed": picture.seed,
        "towards": picture.towards,
        "label": picture.label or None,
        "png": _text(picture.file),
    }


def _text(file: bytes) -> str:
    return base64.b64encode(file).decode()
