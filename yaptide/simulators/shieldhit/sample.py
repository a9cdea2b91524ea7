"""A small input with a known result, to test an installation: 150 MeV protons into a cylinder of water."""

SAMPLE = {
    "beam.dat": """\
RNDSEED 1
JPART0 2
TMAX0 150.0 1.5
NSTAT 1000 0
STRAGG 2
MSCAT 2
NUCRE 1
BEAMPOS 0 0 0
BEAMDIR 0 0
BEAMSIGMA 0 0
DELTAE 0.03
""",
    "mat.dat": "MEDIUM 1\nICRU 276\nEND\n",
    "geo.dat": """\
    0    0          150 MeV protons in water
  RCC    1       0.0       0.0       0.0       0.0       0.0      20.0
                 5.0
  RCC    2       0.0       0.0      -0.5       0.0       0.0      22.0
                 5.5
  RCC    3       0.0       0.0      -1.5       0.0       0.0      24.0
                 6.0
  END
  001          +1
  002          +2     -1
  003          -2     +3     -1
  END
    1    2    3
    1 1000    0
""",
    "detect.dat": """\
Geometry Cyl
    Name Depth
    R 0 5 1
    Z 0 20 400

Output
    Filename depth_dose.bdo
    Geo Depth
    Quantity Dose
""",
}
