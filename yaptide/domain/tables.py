"""Files that results are written as: the client's, which writes them in the same way."""

from yaptide_client.tables import save_npz as save_npz, write_csv as write_csv
