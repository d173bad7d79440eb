"""Runs of pytest in which tests are skipped, on machines that are declared to have what they need and on others."""

import must_run
import pytest

pytest_plugins = ["pytester"]

SKIPS = {
    "inside": 'def test_it(): pytest.skip("no Chromium is installed")',
    "a fixture": '@pytest.fixture\ndef page(): pytest.skip("no Chromium is installed")\ndef test_it(page): ...',
    "a mark": '@pytest.mark.skipif(True, reason="no Chromium is installed")\ndef test_it(): ...',
    "a module": 'pytest.importorskip("no_such_module", reason="no Chromium is installed")\ndef test_it(): ...',
}


@pytest.fixture
def tried(pytester, monkeypatch):
    """`tried(text, CI="true")` runs a test file on such a machine; returns its outcomes and its output."""
    for name in ("CI", "SEGDEPLOY_GPU"):
        monkeypatch.delenv(name, raising=False)

    def run(text, **environment):
        pytester.makeini("[pytest]\nmarkers = beyond_ci")
        pytester.makepyfile(f"import pytest\n{text}")
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        done = pytester.runpytest_inprocess("-p", "must_run")
        return done.parseoutcomes(), done.stdout.str()

    return run


@pytest.mark.slow
@pytest.mark.parametrize("text", SKIPS.values(), ids=SKIPS)
def test_a_skip_fails_in_ci_and_says_why(text, tried):
    outcomes, said = tried(text, CI="true")
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) == 1
    assert "passed" not in outcomes and "skipped" not in outcomes
    expected = "skipped on CI, where .ci/run installs all that a test needs: "
    assert expected in said and "no Chromium is installed" in said


@pytest.mark.slow
@pytest.mark.parametrize("text", SKIPS.values(), ids=SKIPS)
@pytest.mark.parametrize("environment", [{}, {"CI": "false"}, {"SEGDEPLOY_GPU": "1"}], ids=str)
def test_a_skip_is_a_skip_elsewhere(text, environment, tried):
    outcomes, _ = tried(text, **environment)
    assert outcomes == {"skipped": 1}


@pytest.mark.slow
def test_what_ci_does_not_install_may_be_skipped(tried):
    outcomes, _ = tried(f"pytestmark = pytest.mark.beyond_ci\n{SKIPS['inside']}", CI="true")
    assert outcomes == {"skipped": 1}


@pytest.mark.slow
def test_a_fault_that_is_known_is_no_skip(tried):
    text = "@pytest.mark.xfail(reason='a fault')\ndef test_it(): assert False"
    assert tried(text, CI="true")[0] == {"xfailed": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "outcomes"), [({"CI": "true"}, {"skipped": 1}), ({"SEGDEPLOY_GPU": "1"}, {"failed": 1})]
)
def test_a_gpu_is_declared_by_its_own_name(environment, outcomes, tried, monkeypatch, pytester):
    monkeypatch.setattr(must_run, "GPU", pytester.path)
    found, said = tried(SKIPS["inside"], **environment)
    assert found == outcomes
    declaration = "skipped on a machine that is declared to have a GPU: Skipped: no Chromium is installed"
    assert (declaration in said) == ("failed" in outcomes)


def test_the_tests_here_use_it(request):
    assert request.config.pluginmanager.is_registered(must_run)
