from dataclasses import asdict, fields, replace

import pytest

from ddm.errors import RequestError
from ddm.metrics.protocols import Protocol, label, refuse_unequal

PROTOCOL = Protocol(
    reference="cifar10",
    reference_digest="abc",
    n_real=50_000,
    n_fake=10_000,
    first_seed=0,
    features="inception",
    features_digest="def",
    resize="TF1 bilinear to 299",
    pictures="32x32x3",
)


@pytest.mark.parametrize("field", [each.name for each in fields(Protocol) if each.name != "reference"])
def test_everything_that_moves_a_number_moves_the_digest(field: str):
    value = getattr(PROTOCOL, field)
    other = replace(PROTOCOL, **{field: value + 1 if isinstance(value, int) else value + "x"})
    assert other.digest != PROTOCOL.digest
    assert len(PROTOCOL.differences(other)) == 1 and field in PROTOCOL.differences(other)[0]
    with pytest.raises(RequestError, match=f"a and b were not measured alike: {field}"):
        refuse_unequal({"a": PROTOCOL, "b": other})


def test_the_same_pictures_under_another_name_are_the_same():
    other = replace(PROTOCOL, reference="parquet(path='x')")
    assert other.digest == PROTOCOL.digest
    refuse_unequal({"a": PROTOCOL, "b": other, "c": PROTOCOL})


def test_a_record_keeps_the_protocol():
    assert Protocol.of({"metric": "fid", "protocol": asdict(PROTOCOL)}) == PROTOCOL
    for record in ({"metric": "fid"}, {"metric": "fid", "protocol": {"n": 3}}, {"metric": "fid", "protocol": None}):
        with pytest.raises(RequestError, match="a record of 'fid' has no readable protocol"):
            Protocol.of(record)


def test_the_name_says_what_a_reader_needs():
    assert PROTOCOL.name == f"10,000 against 50,000 of cifar10, inception, protocol {PROTOCOL.digest}"


def test_a_number_is_called_fid_in_one_space_only():
    assert label("fid", "inception") == "FID"
    assert label("fid", "efficientnet") == "FD [efficientnet]"
    assert label("fid", "inception(resize='bicubic')") == "FD [inception(resize='bicubic')]"
    assert label("kid(pictures=500)", "inception") == "KID(pictures=500) [inception]"
    assert label("memorisation", "inception") == "memorisation [pixels]"
