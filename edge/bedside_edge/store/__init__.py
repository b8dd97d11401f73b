"""The state folder: encrypted objects as files, everything else in one SQLite database."""
