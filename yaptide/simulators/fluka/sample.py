"""A small input with a known result, to test an installation: 150 MeV protons into a cylinder of water."""

SAMPLE = {
    "water.inp": """\
TITLE
150 MeV protons in water
DEFAULTS                                                              HADROTHE
BEAM           -0.15                                                  PROTON
BEAMPOS          0.0       0.0      -1.0
GEOBEGIN                                                              COMBNAME
    0    0
SPH blkbody    0.0 0.0 0.0 1000.0
SPH space      0.0 0.0 0.0 100.0
RCC water      0.0 0.0 0.0 0.0 0.0 20.0 5.0
END
BLACK        5 +blkbody -space
SPACE        5 +space -water
WATER        5 +water
END
GEOEND
ASSIGNMA    BLCKHOLE     BLACK
ASSIGNMA      VACUUM     SPACE
ASSIGNMA       WATER     WATER
USRBIN          11.0      DOSE     -21.0       5.0       0.0      20.0depth
USRBIN           0.0       0.0       0.0       1.0       1.0     400.0&
RANDOMIZ         1.0         1
START         1000.0
STOP
""",
}
