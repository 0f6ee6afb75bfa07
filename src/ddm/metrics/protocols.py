"""What a number depends on besides the model: two numbers may be set side by side only where this is equal."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ddm.errors import RequestError
from ddm.storage import digest_of


@dataclass(frozen=True)
class Protocol:
    """How pictures were measured.

    Args:
        reference: the real pictures, as the choice that names them, with their split.
        reference_digest: SHA-256 of their content.
        n_real: how many of them; always in stored order, never mirrored.
        n_fake: how many generated pictures.
        first_seed: of the generated pictures; the others follow.
        features: the feature space, as the choice that names it.
        features_digest: SHA-256 of its weights, resizing and code.
        resize: how pictures get the size of the feature network.
        pictures: side and channels of the pictures as they were compared.
        rounding: what becomes of a generated picture before it is measured.
    """

    reference: str
    reference_digest: str
    n_real: int
    n_fake: int
    first_seed: int
    features: str
    features_digest: str
    resize: str
    pictures: str
    rounding: str = "rounded to uint8"

    @property
    def digest(self) -> str:
        """Ten hexadecimal digits: equal for equal protocols only."""
        return digest_of({name: value for name, value in asdict(self).items() if name != "reference"})[:10]

    @property
    def name(self) -> str:
        """For people, e.g. ``10,000 against 50,000 of cifar10, efficientnet, protocol 1f00ab34cd``."""
        against = f"{self.n_fake:,} against {self.n_real:,} of {self.reference}"
        return f"{against}, {self.features}, protocol {self.digest}"

    def differences(self, other: "Protocol") -> list[str]:
        """What is not the same in another protocol, a few words each."""
        ours, theirs = asdict(self), asdict(other)
        return [
            f"{name} {ours[name]!r} and {theirs[name]!r}"
            for name in ours
            if ours[name] != theirs[name] and name != "reference"
        ]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Protocol":
        """From a line of evaluations.jsonl; raises :class:`RequestError` where it has none that can be read."""
        try:
            return cls(**record["protocol"])
        except (KeyError, TypeError):
            raise RequestError(f"evaluations: a record of {record.get('metric')!r} has no readable protocol") from None


def refuse_unequal(protocols: Mapping[str, Protocol]) -> None:
    """Raise :class:`RequestError` that says what differs, unless all protocols are equal.

    Args:
        protocols: by the name of what was measured.
    """
    (first, wanted), *others = protocols.items()
    for name, protocol in others:
        different = wanted.differences(protocol)
        if different:
            raise RequestError(
                f"protocol: {first} and {name} were not measured alike: {'; '.join(different)}; "
                "measure both with ddm compare, or --force to show them marked"
            )


def label(metric: str, features: str) -> str:
    """How a number is called: FID only in the feature space that made the name, else with the space in its name.

    Args:
        metric: the choice of metric, e.g. ``fid`` or ``kid(pictures=5000)``.
        features: the choice of feature space.
    """
    name, options = metric.partition("(")[::2]
    shown = {"fid": "FD", "fid_infinity": "FD∞", "kid": "KID", "class_kid": "class KID", "inception_score": "IS"}
    pixels = name in ("memorisation", "duplicates")
    if features == "inception" and not options and name.startswith("fid"):
        return {"fid": "FID", "fid_infinity": "FID∞"}[name]
    plain = shown.get(name, name) + (f"({options}" if options else "")
    return f"{plain} [pixels]" if pixels else f"{plain} [{features}]"
