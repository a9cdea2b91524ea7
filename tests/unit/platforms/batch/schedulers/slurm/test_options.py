"""Which options jobs may have: none of them can do anything but say how much, how long and where."""

import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from yaptide.domain.errors import InvalidInput
from yaptide.platforms.batch.schedulers.slurm.options import (
    _VALUES,
    check_options,
    format_arguments,
    merge_options,
    read_header,
)

HARMLESS = {
    "--time": "01:00:00",
    "--partition": "plgrid",
    "--account": "plgyaptide-cpu",
    "--mem": "4G",
    "--nodelist": "n[001-017,20]",
    "--constraint": "[intel*2&(avx|sse)]",
    "--exclusive": "",
}
HOSTILE = (
    "; touch x",
    "$(id)",
    "`id`",
    "../..",
    "a\nb",
    "a b",
    "main\n#SBATCH --wrap=x",
    "'",
    '"',
    "\0",
    "-x",
    "=",
    "é",
)


def test_what_is_harmless_is_passed_on():
    assert check_options(HARMLESS) == HARMLESS
    assert "--time=01:00:00" in format_arguments(HARMLESS)
    assert "--exclusive" in format_arguments(HARMLESS)


@pytest.mark.parametrize("value", ["30", "1:30", "1-0", "2-12:00", "00:10:00"])
def test_times(value):
    assert check_options({"-t": value}) == {"--time": value}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "--output",
            "--error",
            "--input",
            "--chdir",
            "-D",
            "-o",
            "-e",
            "--wrap",
            "--export",
            "--export-file",
            "--array",
        ),
        *(
            "--dependency",
            "-d",
            "--job-name",
            "-J",
            "--uid",
            "--mail-user",
            "--mail",
            "--get-user-env",
            "--prolog",
        ),
        *(
            "--signal",
            "--clusters",
            "-M",
            "--container",
            "--bb",
            "--bbf",
            "--comment",
            "--test-only",
            "--wait",
            "--hold",
        ),
        *("", "--", "time", "--time=1", "--time --wrap", "--time\n", "--TIME", "; touch x", "$(id)"),
    ],
)
def test_every_other_option_is_refused(name):
    with pytest.raises(InvalidInput, match="cannot have the option"):
        check_options({name: "1"})


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("value", [*HOSTILE, None, True, 1.5, ["1"], {"a": 1}])
def test_values_that_no_option_has_are_refused(name, value):
    with pytest.raises(InvalidInput, match="Invalid value of the option"):
        check_options({name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("--gpus", "2"), ("-G", "a100:2"), ("--nodes", "1-4"), ("-N", 1), ("-n", "8"), ("--requeue", "")),
        *(("--mail-type", "END,FAIL"), ("--mail-type", "TIME_LIMIT_80")),
    ],
)
def test_more_options(name, value):
    assert list(check_options({name: value}).values()) == [str(value)]


@pytest.mark.parametrize("value", ["", "alice@example.org", "END,", "end", "ALL;x"])
def test_mail_goes_to_the_user_only(value):
    with pytest.raises(InvalidInput, match="--mail-type"):
        check_options({"--mail-type": value})


def test_options_that_exclude_each_other():
    with pytest.raises(InvalidInput, match="--mem and --mem-per-cpu exclude each other"):
        check_options({"--mem": "1G", "--mem-per-cpu": "1G"})
    with pytest.raises(InvalidInput, match="exclude each other"):
        read_header("#SBATCH --requeue\n#SBATCH --no-requeue")


def test_options_of_a_user_replace_what_they_exclude():
    defaults = {"--mem": "4G", "--partition": "main"}
    assert merge_options(defaults, {"--mem-per-cpu": "1G"}) == {"--partition": "main", "--mem-per-cpu": "1G"}
    assert merge_options(defaults, {"--mem": "1G"}) == {"--partition": "main", "--mem": "1G"}


def test_an_option_is_given_once():
    with pytest.raises(InvalidInput, match="twice"):
        check_options({"--time": "1", "-t": "2"})
    with pytest.raises(InvalidInput, match="twice"):
        read_header("#SBATCH --time=1\n#SBATCH --time=2")


@given(st.dictionaries(st.sampled_from([*HARMLESS, "--qos", "-c", "--gres"]), st.text(max_size=12) | st.integers()))
def test_whatever_is_accepted_is_one_plain_word(options):
    try:
        checked = check_options(options)
    except InvalidInput:
        return
    for word in format_arguments(checked):
        assert re.fullmatch(r"--[!-~]+", word)
        assert not set(word) & set("$`;\\'\"<>#~?{}")
        assert shlex.split(shlex.quote(word)) == [word]


def test_a_header_is_read_as_options():
    lines = ("#!/bin/bash", "#SBATCH --time=01:00:00", "#SBATCH -p main", "", "# a comment", "#SBATCH --exclusive")
    header = "\n".join((*lines, "#SBATCH  --mem  4G # much"))
    assert read_header(header) == {"--time": "01:00:00", "--partition": "main", "--exclusive": "", "--mem": "4G"}
    assert read_header("") == {}


@pytest.mark.parametrize(
    "header",
    [
        "touch x",
        "module load x",
        "#SBATCH --time=1; touch x",
        "#SBATCH --wrap=x",
        "#SBATCH --time=1 --wrap=x",
        "#SBATCH --time=$(id)",
        "#SBATCH",
        "#SBATCHES --time=1",
        "# fine\r\ntouch x",
    ],
)
def test_commands_in_a_header_are_refused(header):
    with pytest.raises(InvalidInput):
        read_header(header)


def test_the_document_lists_the_options():
    text = (Path(__file__).parents[6] / "docs/batch.md").read_text()
    section = text.partition("## What jobs may ask for")[2].partition("The prologue")[0]
    assert re.findall(r"`(--[a-z-]+)`", section) == list(_VALUES)
