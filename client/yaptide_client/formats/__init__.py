"""What results are written as: one module for each format. docs/results.md describes them.

A format is a function whose first argument is `estimators`, those of `Results`, in their order. A writer takes the open
file as second argument (`write_csv`, `write_npz`); a conversion returns an object of another library (`to_pandas`,
`to_xarray`). To add a format, add a module here, and a method of `Results` that calls it.
"""
