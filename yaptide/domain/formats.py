"""File formats of results: those of the client."""

from yaptide_client.formats.csv_file import write_csv as write_csv
from yaptide_client.formats.npz_file import write_npz as write_npz
