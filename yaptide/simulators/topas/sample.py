"""A small input with a known result, to test an installation: 150 MeV protons into a box of water."""

SAMPLE = {
    "water.txt": """\
s:Ge/World/Type = "TsBox"
s:Ge/World/Material = "Vacuum"
d:Ge/World/HLX = 20. cm
d:Ge/World/HLY = 20. cm
d:Ge/World/HLZ = 30. cm

s:Ge/Water/Type = "TsBox"
s:Ge/Water/Parent = "World"
s:Ge/Water/Material = "G4_WATER"
d:Ge/Water/HLX = 5. cm
d:Ge/Water/HLY = 5. cm
d:Ge/Water/HLZ = 10. cm
d:Ge/Water/TransZ = 10. cm
i:Ge/Water/ZBins = 400

s:Ge/Start/Type = "Group"
s:Ge/Start/Parent = "World"
d:Ge/Start/TransZ = -1. cm

s:So/Protons/Type = "Beam"
s:So/Protons/Component = "Start"
s:So/Protons/BeamParticle = "proton"
d:So/Protons/BeamEnergy = 150. MeV
u:So/Protons/BeamEnergySpread = 0.
s:So/Protons/BeamPositionDistribution = "None"
s:So/Protons/BeamAngularDistribution = "None"
i:So/Protons/NumberOfHistoriesInRun = 1000

s:Sc/depth_dose/Quantity = "DoseToMedium"
s:Sc/depth_dose/Component = "Water"
s:Sc/depth_dose/OutputType = "csv"
sv:Sc/depth_dose/Report = 1 "Mean"
i:Ts/Seed = 1
""",
}
