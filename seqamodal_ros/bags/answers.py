# SPDX-License-Identifier: Apache-2.0
"""Answers on the disk, so that what was interrupted goes on where it stopped."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ANSWERS = "answers.sqlite3"  # in the folder of the unfinished work


class Answers:
    """Serialized answers on the disk, by the SHA-256 of the serialized image; each is there for good once it is kept."""

    def __init__(self, database: sqlite3.Connection):
        self._database = database

    def __len__(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM answers").fetchone()[0])

    def get(self, digest: bytes) -> bytes | None:
        """The answer to an image, None where there is none yet."""
        row = self._database.execute("SELECT answer FROM answers WHERE image = ?", (digest,)).fetchone()
        return row and bytes(row[0])

    def keep(self, digest: bytes, answer: bytes) -> None:
        """Write an answer and wait until it is on the disk."""
        self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (digest, answer))

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()


@contextmanager
def open_answers(part: Path, job: dict[str, Any]) -> Iterator[Answers]:
    """Open the answers in the folder `part`, those of an interrupted run or new ones; no second process can meanwhile.

    Args:
        part: made where it does not exist.
        job: what the answers depend on, by the option that sets it; an interrupted run must have had the same.

    Raises:
        FileExistsError: the folder was left by something else.
        ValueError: it was left by another job, or one is at work in it.
        OSError: it cannot be written.
    """
    path = part / ANSWERS
    if part.is_dir() and not path.is_file() and any(part.iterdir()):
        raise FileExistsError(f"{part} exists and is no unfinished bag of this command: remove it, or name another OUT")
    part.mkdir(parents=True, exist_ok=True)
    try:
        # autocommit: each statement is a transaction of its own, and SQLite flushes it
        database = sqlite3.connect(path, timeout=0, isolation_level=None)
    except sqlite3.OperationalError as error:
        raise OSError(f"cannot write {path}: {error}") from error
    try:
        started = _begin(database, job, part)
        for name in {**job, **started}:
            before, now = started.get(name), job.get(name)
            if before != now:
                raise ValueError(
                    f"{part} was begun with {name} {before}, this is {now}: give the command that began it, "
                    "name another OUT, or remove that folder"
                )
        yield Answers(database)
    finally:
        database.close()


def _begin(database: sqlite3.Connection, job: dict[str, Any], part: Path) -> dict[str, Any]:
    """Take the file for this process alone, and write the job into a new one; returns the job that is in it."""
    try:
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")  # one flush for each answer, not three
        database.execute("BEGIN EXCLUSIVE")
        database.execute("CREATE TABLE IF NOT EXISTS job (json TEXT NOT NULL)")
        database.execute("CREATE TABLE IF NOT EXISTS answers (image BLOB PRIMARY KEY, answer BLOB NOT NULL)")
        row = database.execute("SELECT json FROM job").fetchone()
        if row is None:
            database.execute("INSERT INTO job VALUES (?)", (json.dumps(job),))
        database.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise ValueError(f"another process is at work on {part}") from error
        raise OSError(f"cannot write {part / ANSWERS}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{part / ANSWERS} is damaged: remove {part} to start afresh") from error
    return job if row is None else json.loads(row[0])
