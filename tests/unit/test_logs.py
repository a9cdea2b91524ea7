"""Lines of the log as people and programs read them."""

import json
import logging
import sys
import threading
import warnings
from datetime import datetime

import pytest
import structlog

from tests.support.log import left_alone
from yaptide import logs

SECRET = "correct horse"


@pytest.fixture(autouse=True)
def as_it_was():
    with left_alone():
        yield


def lines(capsys):
    out, err = capsys.readouterr()
    assert out == ""
    return [json.loads(line) for line in err.splitlines()]


def fail():
    password = SECRET
    raise ValueError(f"{len(password)} characters")


def test_lines_of_ours_and_of_libraries_are_json_objects(capsys):
    logs.configure_logging("json")
    structlog.stdlib.get_logger("yaptide.x").info("request", status=200)
    logging.getLogger("some.library").warning("%s of\n%s", 1, "2")
    ours, theirs = lines(capsys)
    assert list(ours) == ["time", "level", "logger", "event", "status"]
    assert datetime.fromisoformat(ours["time"]).utcoffset().total_seconds() == 0
    assert (ours["level"], ours["logger"], ours["event"], ours["status"]) == ("info", "yaptide.x", "request", 200)
    assert (theirs["level"], theirs["logger"], theirs["event"]) == ("warning", "some.library", "1 of\n2")


def test_lines_tell_what_they_are_about(capsys):
    logs.configure_logging("json")
    log = logging.getLogger("yaptide.x")
    log.warning("before")
    logs.bind_log_context(job_id="b", user="alice")
    log.warning("bound")
    before, bound = lines(capsys)
    assert "job_id" not in before
    assert (bound["job_id"], bound["user"]) == ("b", "alice")


def test_an_error_is_a_field_in_json_without_the_values_of_variables(capsys):
    logs.configure_logging("json")
    try:
        fail()
    except ValueError:
        logging.getLogger("yaptide.x").exception("failed")
    (line,) = lines(capsys)
    (error,) = line["exception"]
    assert (error["exc_type"], error["exc_value"]) == ("ValueError", "13 characters")
    assert error["frames"][-1]["name"] == "fail"
    assert SECRET not in json.dumps(line)


def test_an_error_can_be_read_in_text(capsys):
    logs.configure_logging("text")
    try:
        fail()
    except ValueError:
        logging.getLogger("yaptide.x").exception("failed")
    err = capsys.readouterr().err
    assert "[error    ] failed" in err
    assert err.rstrip().endswith("ValueError: 13 characters")
    assert SECRET not in err
    assert "\033" not in err


def test_text_says_nothing_unless_there_is_trouble_and_json_tells_of_requests(capsys):
    for form, said in (("text", ["warning"]), ("json", ["info", "warning"])):
        logs.configure_logging(form)
        for level in ("debug", "info", "warning"):
            structlog.stdlib.get_logger("yaptide.x").log(logging.getLevelNamesMapping()[level.upper()], level)
        result = capsys.readouterr().err.splitlines()
        assert len(result) == len(said)
        assert all(word in line for word, line in zip(said, result, strict=True))


def test_a_level_can_be_chosen(capsys):
    logs.configure_logging("text", "error")
    logging.getLogger("yaptide.x").warning("quiet")
    logs.configure_logging("text", "debug")
    logging.getLogger("yaptide.x").debug("loud")
    (line,) = capsys.readouterr().err.splitlines()
    assert "loud" in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_nobody_can_begin_a_line_or_steer_a_terminal(capsys, form):
    logs.configure_logging(form)
    hostile = "a\n2026-01-01 [error] forged\033[2J\u2028b"
    logging.getLogger("yaptide.x").warning("%s", hostile)
    structlog.stdlib.get_logger("yaptide.x").warning("known", user=hostile)
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 2
    assert "\033" not in err
    assert "forged" in err


def test_warnings_and_last_words_are_lines_too(capsys):
    logs.configure_logging("json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    try:
        fail()
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    warning, process, of_thread = lines(capsys)
    assert "DeprecationWarning: old" in warning["event"]
    for line in (process, of_thread):
        assert (line["level"], line["exception"][0]["exc_type"]) == ("critical", "ValueError")
