"""The configuration file of MCsquare: lines of ``Key Value``, with comments after ``#``.

Keys, defaults and limits are those of MCsquare 1.1. It only warns about an unknown key and uses the default, so a
typing error would silently change the physics. Such a key is rejected here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from yaptide.simulators.runs import MOST_PRIMARIES, draw_seed
from yaptide.simulators.text import Line, filled_lines, find_similar, quote_word

FILE = "config.txt"

#: Tasks always simulate a multiple of this number of primaries.
QUANTUM = 160

#: Quantities that can be scored, in the order of the results.
QUANTITIES = ("Dose", "Energy", "LET")

_LEAST_PRIMARIES = 10  # with fewer, MCsquare simulates none and reports success
_LARGEST_SEED = 2**32 - 1  # MCsquare wraps larger ones around

#: Names of input files in a task's folder, by their key.
TASK_FILES = {
    "CT_File": "ct.mhd",
    "HU_Density_Conversion_File": "HU_Density.txt",
    "HU_Material_Conversion_File": "HU_Material.txt",
    "BDL_Machine_Parameter_File": "BDL.txt",
    "BDL_Plan_File": "plan.txt",
}

_DEFAULT_FILES = {
    "CT_File": "CT.mhd",
    "HU_Density_Conversion_File": "HU_Density_Conversion.txt",
    "HU_Material_Conversion_File": "HU_Material_Conversion.txt",
    "BDL_Machine_Parameter_File": "BDL.txt",
    "BDL_Plan_File": "Plan.txt",
}

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class Config:
    """The user's choices for a run.

    `primaries` is a multiple of QUANTUM, `seed` is never 0, `files` contains the name of each input file by its key,
    `quantities` is a subset of QUANTITIES with at least the dose, `physics` contains keys that MCsquare gets unchanged.
    """

    primaries: int
    seed: int
    files: Mapping[str, str]
    quantities: tuple[str, ...]
    physics: Mapping[str, str]


def simulated_primaries(primaries: int) -> int:
    """Return how many primaries MCsquare simulates for `primaries` requested: 10 batches of a multiple of 16."""
    return QUANTUM * -(-(primaries // 10) // 16)


def parse_config(text: str) -> Config:
    """Parse a configuration file; raise InvalidInput for settings that MCsquare would reject or ignore."""
    lines = _by_key(text)
    values = {key: _KEYS[key](line) for key, line in lines.items()}
    _check_base_names(lines)
    primaries = lines.get("Num_Primaries")
    requested = primaries.parse_integer(1, "Num_Primaries", _LEAST_PRIMARIES, MOST_PRIMARIES) if primaries else 10**7
    seed = lines["RNG_Seed"].parse_integer(1, "RNG_Seed", 0, _LARGEST_SEED) if "RNG_Seed" in lines else 0
    return Config(
        primaries=simulated_primaries(requested),
        seed=seed or draw_seed(),
        files={key: values.get(key, default) for key, default in _DEFAULT_FILES.items()},
        quantities=tuple(name for name in QUANTITIES if name == "Dose" or values.get(f"{name}_MHD_Output") == "True"),
        physics={key: value for key, value in values.items() if key in _PHYSICS},
    )


def format_config(config: Config, primaries: int, seed: int) -> str:
    """Return the configuration file of a task."""
    settings = {
        "Num_Threads": "1",  # several threads would make the result of a seed irreproducible
        "RNG_Seed": str(seed),
        "Num_Primaries": str(primaries),
        "Compute_stat_uncertainty": "True",  # otherwise MCsquare rounds primaries differently
        "Output_Directory": "Outputs",
        **TASK_FILES,
        **{f"{name}_MHD_Output": str(name in config.quantities) for name in QUANTITIES},
        **config.physics,
    }
    return "".join(f"{key} {value}\n" for key, value in settings.items())


def looks_like(text: str) -> bool:
    """Return whether any line begins with a key of MCsquare."""
    return any(line.words[0] in _KEYS for line in filled_lines(FILE, text))


def _by_key(text: str) -> dict[str, Line]:
    lines: dict[str, Line] = {}
    for line in filled_lines(FILE, text):
        key = line.words[0]
        if key not in _KEYS:
            raise line.make_error(f"MCsquare has no key {quote_word(key)}{find_similar(key, _KEYS)}")
        if key in lines:
            raise line.make_error(f"{key} is repeated, after line {lines[key].number}")
        if len(line.words) < 2:
            raise line.make_error(f"{key} has no value")
        if len(line.words) > 2 and key not in _LONG:
            raise line.make_error(f"{key} has more than one value")
        lines[key] = line
    return lines


def _boolean(line: Line) -> str:
    value = _BOOLEANS.get(line.words[1].lower())
    if value is None:
        raise line.make_error(f"{line.words[0]} must be True or False, not {quote_word(line.words[1])}")
    return str(value)


def _off(line: Line) -> str:
    if _boolean(line) == "True":
        raise line.make_error(
            f"{line.words[0]} is not supported: use one dose for the whole plan, on the grid of the CT"
        )
    return "False"


def _zero(line: Line) -> str:
    if line.parse_real(1, line.words[0]) != 0:
        raise line.make_error(
            f"{line.words[0]} must be 0: the number of primaries must be fixed to split them over tasks"
        )
    return "0"


def _file(line: Line) -> str:
    """Return the name of a file without its folder: the input files of a simulation are in one folder."""
    name = " ".join(line.words[1:])
    base = _base(name)
    if not base or ".." in base:
        raise line.make_error(f"{line.words[0]} must be the name of an input file, not {quote_word(name)}")
    return base


def _base(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _check_base_names(lines: Mapping[str, Line]) -> None:
    """Raise InvalidInput for two different files with one name in two folders."""
    paths: dict[str, str] = {}
    for key in _DEFAULT_FILES:
        if key in lines:
            path = " ".join(lines[key].words[1:])
            if paths.setdefault(_base(path), path) != path:
                raise lines[key].make_error(
                    f"{quote_word(path)} and {quote_word(paths[_base(path)])} have the same name: rename one of them, "
                    "because input files are in one folder"
                )


def _one_of(*words: str) -> Callable[[Line], str]:
    def choice(line: Line) -> str:
        if line.words[1] not in words:
            raise line.make_error(f"{line.words[0]} must be {' or '.join(words)}")
        return line.words[1]

    return choice


def _real(low: float, high: float) -> Callable[[Line], str]:
    return lambda line: repr(line.parse_real(1, line.words[0], low, high))


def _anything(line: Line) -> str:
    return line.words[1]


_PHYSICS: dict[str, Callable[[Line], str]] = {
    "E_Cut_Pro": _real(0.001, 200),
    "D_Max": _real(0.001, 100),
    "Epsilon_Max": _real(0.001, 1),
    "Te_Min": _real(0.001, 10),
    "MCS_const": _real(0.001, 200),
    "Simulate_Nuclear_Interactions": _boolean,
    "Simulate_Secondary_Protons": _boolean,
    "Simulate_Secondary_Deuterons": _boolean,
    "Simulate_Secondary_Alphas": _boolean,
    "LET_Calculation_Method": _one_of("StopPow", "DepositedEnergy"),
    "Dose_to_Water_conversion": _one_of("Disabled", "PostProcessing", "OnlineSPR"),
    "Dose_Segmentation": _boolean,
    "Density_Threshold_for_Segmentation": _real(1e-5, 20),
    "Ignore_low_density_voxels": _boolean,
}

#: Modes that produce several results, or results on another grid.
_UNSUPPORTED = (
    "4D_Mode 4D_Dose_Accumulation Create_Ref_from_4DCT Create_4DCT_from_Ref Dynamic_delivery Robustness_Mode "
    "Beamlet_Mode Beamlet_Parallelization Optimization_Mode Export_batch_dose Export_Beam_dose Compute_DVH "
    "Score_PromptGammas Independent_scoring_grid"
)

#: Keys that only affect unsupported modes, or that yaptide sets itself; ``engine`` is matRad's.
_WITHOUT_EFFECT = (
    "Num_Threads Output_Directory Max_Num_Primaries Field_type Breathing_period Scenario_selection "
    "Simulate_nominal_plan Num_Random_Scenarios Systematic_Setup_Error Random_Setup_Error Systematic_Range_Error "
    "Systematic_Amplitude_Error Random_Amplitude_Error Systematic_Period_Error Random_Period_Error "
    "Dose_Sparse_Threshold Energy_Sparse_Threshold LET_Sparse_Threshold PG_LowEnergyCut PG_HighEnergyCut "
    "PG_Spectrum_NumBin PG_Spectrum_Binning Scoring_origin Scoring_grid_size Scoring_voxel_spacing "
    "Dose_weighting_algorithm engine"
)

_SWITCHES = (
    "Compute_stat_uncertainty Dose_MHD_Output Energy_MHD_Output LET_MHD_Output Dose_ASCII_Output "
    "Energy_ASCII_Output LET_ASCII_Output Dose_Sparse_Output Energy_Sparse_Output LET_Sparse_Output "
    "Densities_Output Materials_Output"
)

#: Keys whose values may have several words.
_LONG = {*_DEFAULT_FILES, *_WITHOUT_EFFECT.split()}

#: All keys of MCsquare, with the functions that parse their lines.
_KEYS: dict[str, Callable[[Line], str]] = {
    **_PHYSICS,
    **dict.fromkeys(_DEFAULT_FILES, _file),
    **dict.fromkeys(_UNSUPPORTED.split(), _off),
    **dict.fromkeys(_WITHOUT_EFFECT.split(), _anything),
    **dict.fromkeys(_SWITCHES.split(), _boolean),
    **dict.fromkeys(("Stat_uncertainty", "Max_Simulation_time"), _zero),
    **dict.fromkeys(("Num_Primaries", "RNG_Seed"), _anything),
}
