from threading import Thread

from fake_tensorrt import fake

from segdeploy.flavour import Flavour, Version
from segdeploy.run.tensorrt.log import MOST, listening, logger_of


def here():
    return Flavour("tensorrt", fake("10.3.0"), Version(10, 3, 0))


def test_errors_and_warnings_are_kept_in_order_and_once():
    flavour = here()
    kinds, logger = flavour.module.ILogger, logger_of(flavour.module)
    with listening(flavour) as heard:
        for kind, message in (
            (kinds.VERBOSE, "v"), (kinds.INFO, "i"), (kinds.WARNING, "w"), (kinds.ERROR, "e"), (kinds.WARNING, "w"),
            (kinds.INTERNAL_ERROR, "x"),
        ):  # fmt: skip
            logger.log(kind, message)
    logger.log(kinds.ERROR, "later")
    assert heard.warnings == ["w"]
    assert heard.errors == ["e", "x"]


def test_there_is_one_logger_for_ever_and_many_listeners():
    flavour = here()
    assert logger_of(flavour.module) is logger_of(flavour.module)
    with listening(flavour) as outer, listening(flavour) as inner:
        logger_of(flavour.module).log(flavour.module.ILogger.ERROR, "both")
    assert outer.errors == inner.errors == ["both"]


def test_what_is_kept_is_bounded_and_the_first_stays():
    flavour = here()
    logger, error = logger_of(flavour.module), flavour.module.ILogger.ERROR
    with listening(flavour) as heard:
        threads = [
            Thread(target=lambda start=start: [logger.log(error, f"{start + index}") for index in range(100)])
            for start in range(0, 1000, 100)
        ]
        logger.log(error, "the cause")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(heard.errors) == MOST
    assert heard.errors[0] == "the cause"
