"""Atomic writing of files and folders: an unfinished result never has its final name."""

from vditrack.atomic_files.checks import (
    check_disk_space,
    check_file_destination,
    check_folder_destination,
)
from vditrack.atomic_files.paths import follow_links, list_foreign, named_option
from vditrack.atomic_files.results import ResultsFolder, results_folder
from vditrack.atomic_files.scratch import remove_scratch_folders
from vditrack.atomic_files.staging import remove_folder, staged_file, staged_folder

__all__ = [
    "ResultsFolder",
    "check_disk_space",
    "check_file_destination",
    "check_folder_destination",
    "follow_links",
    "list_foreign",
    "named_option",
    "remove_folder",
    "remove_scratch_folders",
    "results_folder",
    "staged_file",
    "staged_folder",
]
