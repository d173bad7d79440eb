from pathlib import Path

import pytest

from segdeploy.convert.engine.request import EngineRequest, parse_targets
from segdeploy.errors import RequestError
from segdeploy.model.engine import EngineOptions, Profile


def test_targets():
    assert parse_targets("sm_86, sm_120,sm_86") == ("sm_86", "sm_120")
    with pytest.raises(RequestError, match=r"--target '8\.6' is not a compute capability"):
        parse_targets("sm_89,8.6")


def test_what_was_asked_for_is_remembered():
    assert EngineRequest().options == EngineOptions()
    asked = EngineRequest(fp16=True, dla=0, timing_cache=Path("there/t.cache"), profile=Profile(1, 2, 4))
    assert asked.options == EngineOptions(fp16=True, dla=0, timing_cache="t.cache", batch="1:2:4")
