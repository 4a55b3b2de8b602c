"""What a chain asks for in the place of what its server refuses."""

from __future__ import annotations

from reasoning.capabilities import FORMATS, Capabilities, Format, weaker
from reasoning.endpoint import Request
from reasoning.errors import FormatRefused, Refused, RequestError
from reasoning.events import Notice

NO_GOING_ON = Notice("no_going_on", "The server does not go on from a message.")


class Fallback:
    """What one chain asks for: what its server is known to take, less what that refuses.

    What has worked in the place of what was refused is the server's to remember.
    """

    def __init__(self, known: Capabilities, goes_on: bool) -> None:
        self._known = known
        self.format: Format = known.format
        self.goes_on = goes_on and known.goes_on
        self._is_form_theirs = self._is_going_on_refused = False

    @property
    def begins(self) -> bool:
        """Whether the server is given what each step begins with, and a grammar of the rest."""
        return self.goes_on and self.format == FORMATS[0]

    def answer_in(self, form: Format) -> None:
        """The answer is next, in the caller's form: a refusal of that says nothing of our own."""
        self.format, self._is_form_theirs = weaker(form, self._known.format), True

    def cure(self, error: RequestError, request: Request) -> Notice | None:
        """What is done without from now on; None where the error is about something else."""
        leads = request.go_on or bool(request.begun)
        if isinstance(error, FormatRefused) and request.format != "text" and not request.begun:
            self.format = FORMATS[FORMATS.index(request.format) + 1]
            return Notice("format", self.format)
        if isinstance(error, (Refused, FormatRefused)) and leads:
            self.goes_on, self._is_going_on_refused = False, True
            return NO_GOING_ON
        return None

    def began_anew(self) -> None:
        """The model did where it was to go on; what another does is not known by that."""
        self.goes_on = False

    def replied(self) -> None:
        """A reply has come: what was refused before it need not be asked for by other chains."""
        if not self._is_form_theirs:
            self._known.fell_back_to(self.format)
        if self._is_going_on_refused:
            self._known.refused_to_go_on()
