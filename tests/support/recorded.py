"""What the web front end sends as input files, and the names under which it expects the results.

The geometry is our own; outputs, quantities, filters, units and pages are those of recorded runs.
"""

_GEOMETRY = """\
    0    0          Pencil beam in water
  RCC    1       0.0       0.0       0.0       0.0       0.0      20.0
                 5.0
  RCC    2       0.0       0.0      -1.0       0.0       0.0      24.0
                 6.0
  RCC    3       0.0       0.0      -2.0       0.0       0.0      28.0
                 7.0
  END
  001          +1
  002          +2     -1
  003          +3     -2
  END
    1    2    3
    1 1000    0
"""
_MESHES = """\
Geometry Cyl
    Name Depth
    R 0 5 1
    Z 0 20 400
Geometry Mesh
    Name Plane
    X -0.5 0.5 1
    Y -2 2 8
    Z 0 20 40
Geometry Cyl
    Name Slab
    R 0 5 1
    Z 15.3 15.4 1
Filter
    Name Protons
    Z == 1
    A == 1
Filter
    Name Primaries
    Z == 1
    A == 1
    GEN == 0
"""
_LETTERS = {"AvgEnergy": ("AVG-ENERGY", "MeV"), "dLET": ("DLET", "MeV/cm"), "tLET": ("TLET", "MeV/cm")}
_LETTERS |= {"Dose": ("DOSE", "MeV/g/prim"), "Fluence": ("FLUENCE", "/cm^2/prim")}
_Y, _Z = ("Position (Y)", "cm", 8), ("Position (Z)", "cm", 40)
_SLAB = [("Dose", None), ("AvgEnergy", "Primaries"), ("AvgEnergy", "Protons"), ("dLET", "Protons"), ("tLET", "Protons")]
_SCORED = {
    "z_profile": ("Depth", [("Dose", None), ("Fluence", "Protons")], [("Position (Z)", "cm", 400)]),
    "yz_profile": ("Plane", [("Dose", None), ("Fluence", "Protons")], [_Y, _Z]),
    "entrance": ("Slab", _SLAB, []),
    "peak": ("Slab", _SLAB, []),
}
_SPECTRUM = ("FLUENCE", "/cm^2/MeV/prim", [("Kinetic energy", "MeV", 640)], "Protons")

#: Pages of each output of `shieldhit_files`: name, unit, axes (name, unit, bins), filter.
OUTPUTS = {
    name: [(*_LETTERS[quantity], axes, of) for quantity, of in scored] + ([_SPECTRUM] if mesh == "Slab" else [])
    for name, (mesh, scored, axes) in _SCORED.items()
}


def shieldhit_files(primaries=10_000):
    """Return the input files of a SHIELD-HIT12A run, with the outputs of the front end's first example."""
    blocks = [_MESHES]
    for name, (mesh, scored, _) in _SCORED.items():
        blocks.append(f"Output\n    Filename {name}.bdo\n    Geo {mesh}\n")
        blocks += [f"    Quantity {quantity} {of or ''}\n" for quantity, of in scored]
        if mesh == "Slab":
            blocks.append("    Quantity Fluence Protons\n    Diff1 0 160 640\n    Diff1Type E\n")
    beam = "RNDSEED \t89736501 ! Random seed\nJPART0  \t2 ! Proton\nTMAX0   \t150.0 1.5\nTCUT0 0 1000\n"
    beam += f"NSTAT  {primaries}    0  ! NSTAT, Step of saving\nSTRAGG 2\nMSCAT 2\nNUCRE 1\nDELTAE 0.03\n"
    files = {"beam.dat": beam, "mat.dat": "MEDIUM 1\nICRU 276\nEND\n", "geo.dat": _GEOMETRY}
    return files | {"detect.dat": "".join(blocks), "info.json": "{}"}


_PARTICLES = {"NEUTRON": ("FLUENCE NEUTRON", "/cm^2"), "ENERGY": ("ENERGY", "MeV")}
_BINS = [(1, 1, 500), (1, 500, 500), (500, 500, 1), (500, 1, 500)]
#: Name and unit of the page of each unit of `fluka_files`.
UNITS = {str(21 + index): _PARTICLES[("NEUTRON", "ENERGY")[index // 4]] for index in range(8)}


def fluka_files(primaries=10_000):
    """Return the input file of a FLUKA run, with the eight scorers of the front end's example, units 21 to 28."""
    cards = [
        "TITLE\nprotons in water",
        f"{'DEFAULTS':<70}HADROTHE",
        f"{'BEAM':<10}{'-0.2':>10}{'':50}PROTON    ",
        f"{'BEAMPOS':<10}{'0.0':>10}{'0.0':>10}{'-50.0':>10}",
        f"{'GEOBEGIN':<70}COMBNAME\n    0    0",
        "SPH outer      0.0 0.0 0.0 1000.0\nSPH inner      0.0 0.0 0.0 100.0",
        "RCC target     0.0 0.0 0.0 0.0 0.0 10.0 5.0",
        "END\nBLACK        5 +outer -inner\nSPACE        5 +inner -target\nTARGET       5 +target\nEND\nGEOEND",
        *(f"ASSIGNMA  {m:>10}{r:>10}" for m, r in (("BLCKHOLE", "BLACK"), ("AIR", "SPACE"), ("WATER", "TARGET"))),
    ]
    for index in range(8):
        particle, bins = ("NEUTRON", "ENERGY")[index // 4], _BINS[index % 4]
        first = ["10.0", particle, -21 - index, "5.0", "5.0", "5.0"]
        cards.append("USRBIN    " + "".join(f"{what:>10}" for what in first) + f"n{index}")
        cards.append(f"{'USRBIN':<10}{'-5.0':>10}{'-5.0':>10}{'0.0':>10}" + "".join(f"{n:>10}" for n in bins) + "&")
    cards += [f"{'RANDOMIZ':<10}{'':>10}{137:>10}", f"{'START':<10}{f'{primaries}.0':>10}", "STOP\n"]
    return {"fl_sim.inp": "\n".join(cards), "info.json": "{}"}
