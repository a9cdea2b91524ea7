"""A small input with a known result, to test an installation: 150 MeV protons into a block of water."""

_COLUMNS = (
    "NominalEnergy MeanEnergy EnergySpread ProtonsMU Weight1 SpotSize1x Divergence1x Correlation1x SpotSize1y "
    "Divergence1y Correlation1y Weight2 SpotSize2x Divergence2x Correlation2x SpotSize2y Divergence2y Correlation2y"
)
_SPOT = "4 0.003 0.0001 4 0.003 0.0001"


def water_sample(primaries: int = 1600, energy: float = 150.0, gantry: float = 0.0, seed: int = 1) -> dict[str, str]:
    """Return input files: a beam of `energy` MeV (70 to 230) into the middle of 120 x 200 x 120 mm of water."""
    rows = "\n".join(f"{row} {row} 0.6 1e8 1 {_SPOT} 0 {_SPOT}" for row in (70, 150, 230))
    return {
        "config.txt": (
            f"Num_Primaries {primaries}\nRNG_Seed {seed}\nCT_File ct.mhd\nHU_Density_Conversion_File HU_Density.txt\n"
            "HU_Material_Conversion_File HU_Material.txt\nBDL_Machine_Parameter_File BDL.txt\nBDL_Plan_File plan.txt\n"
            "Dose_MHD_Output True\nEnergy_MHD_Output True\nLET_MHD_Output True\n"
        ),
        "ct.txt": "grid 60 200 60\nspacing 2 1 2\nfill 0\n",
        "HU_Density.txt": "-1000 0.0012\n0 1\n3000 4\n",
        "HU_Material.txt": "-1100 13\n-500 17\n",
        "BDL.txt": (
            "--UPenn beam model (double gaussian)--\n\nNozzle exit to Isocenter distance\n400\n\n"
            "SMX to Isocenter distance\n2000\n\nSMY to Isocenter distance\n2000\n\n"
            f"Beam parameters\n3 energies\n\n{_COLUMNS}\n{rows}\n"
        ),
        "plan.txt": (
            "#TREATMENT-PLAN-DESCRIPTION\n##NumberOfFields\n1\n\n#FIELD-DESCRIPTION\n"
            f"###GantryAngle\n{gantry}\n###PatientSupportAngle\n0\n###IsocenterPosition\n60 100 60\n"
            "###NumberOfControlPoints\n1\n\n#SPOTS-DESCRIPTION\n####ControlPointIndex\n1\n"
            f"####Energy (MeV)\n{energy}\n####NbOfScannedSpots\n1\n####X Y Weight\n0 0 1\n"
        ),
    }
