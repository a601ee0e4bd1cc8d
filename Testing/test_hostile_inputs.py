"""Every hostile input is read, read with a note, or refused in one sentence, as it should be."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import hostile_inputs
from CTLungScreeningLib.errors import InputError
from CTLungScreeningLib.reading.ct_reading import read_ct
from hostile_inputs import INPUTS
from hostile_makers import SECRETS, Hostile, phantom

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="needs POSIX"),
    pytest.mark.filterwarnings("ignore:.*:UserWarning"),
]


@pytest.mark.parametrize("one", INPUTS, ids=lambda one: f"{one.kind}, {one.name}")
def test_an_input_is_read_noted_or_refused(one: Hostile, tmp_path: Path) -> None:
    source = one.make(tmp_path)
    if one.expect == "refused":
        with pytest.raises(InputError) as refused:
            read_ct(source)
        sentence = str(refused.value)
        assert one.words in sentence, sentence
        assert sentence.endswith(".") and "\n" not in sentence
        assert not any(secret in sentence for secret in SECRETS)
        return
    scan = read_ct(source)
    found, truth = (sitk.GetArrayFromImage(image) for image in (scan.image, phantom()))
    known = ~((found == -1000) | (truth <= -1000))
    assert found.shape == truth.shape
    assert np.abs(found.astype(float) - truth)[known].max() <= 1
    if one.expect == "noted":
        assert any(one.words in note for note in scan.notes), scan.notes
    else:
        assert scan.notes == ()


@pytest.mark.slow
def test_every_command_that_fits_comes_out_well(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, hostile_inputs.__file__, str(tmp_path / "all")],
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
