"""Files of other formats that are made from the Parquet files of tracks."""
