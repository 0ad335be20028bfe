"""Fixtures: a private directory, a simulator, gateways; what a test leaves running fails it."""

import pytest

from harness import Gateway, Sim, private_directory, remove_directory


@pytest.fixture
def directory(request):
    path = private_directory()
    yield path
    report = getattr(request.node, "report", None)
    if report is not None and report.failed:
        print(f"\nkept for a look: {path}")
    else:
        remove_directory(path)


@pytest.fixture
def sim(directory):
    simulator = Sim(directory).start()
    yield simulator
    simulator.stop()


@pytest.fixture
def second(directory):
    """Another provider, a simulator of its own."""
    path = directory / "second"
    path.mkdir()
    simulator = Sim(path).start()
    yield simulator
    simulator.stop()


@pytest.fixture
def make_gateway(directory, sim):
    """A factory; every gateway it made is stopped at the end, and must leave nothing behind."""
    made = []

    def make(start=True, **arguments):
        gateway = Gateway(arguments.pop("directory", directory), sim, **arguments)
        made.append(gateway)
        return gateway.start() if start else gateway

    yield make
    for gateway in made:
        gateway.stop()
    # Afterwards, because several may have been made for one directory.
    left = sorted({item for gateway in made for item in gateway.leftovers()})
    for gateway in made:
        gateway.error_log()  # every line is JSON
    for gateway in made:
        gateway.clear()
    assert left == []


@pytest.fixture
def gateway(make_gateway):
    return make_gateway()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call":
        item.report = report
