"""What can go wrong between a model's name and its weights on this disk.

    WeightsError
    |-- NotHere              this source does not have it; another may
    |   |-- Unreachable      no network, a broken connection, a server in trouble
    |   |-- UnknownModel     the hub has no such repository
    |   `-- Locked           gated, and no token that opens it
    |-- Cut                  the transfer broke off: run it again, it goes on
    |-- Damaged              what arrived is not what the source said
    |-- Unfit                the repository cannot or should not be served
    |-- NoSpace              the disk is too small
    `-- Unprepared           this machine lacks a package, or the folder cannot be written

Each is one line for a person: what happened, then what to do. A token is in none.
"""

from __future__ import annotations


class WeightsError(Exception):
    """`message` says what happened, `remedy` what to do about it."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return " ".join(f"{self.message} {self.remedy}".split())


class NotHere(WeightsError):
    pass


class Unreachable(NotHere):
    pass


class UnknownModel(NotHere):
    pass


class Locked(NotHere):
    pass


class Cut(WeightsError):
    pass


class Damaged(WeightsError):
    pass


class Unfit(WeightsError):
    pass


class NoSpace(WeightsError):
    pass


class Unprepared(WeightsError):
    pass
