"""What can go wrong between a question and its answer.

    StepwiseError
    |-- ServerError            the server must be looked at
    |   |-- Unreachable        no connection
    |   |-- Busy               429, 503: come back later
    |   |-- ServerFault        5xx, a broken or unfinished stream
    |   |-- Silent             it stopped talking
    |   `-- NotOpenAI          it answers, but not as an OpenAI-compatible server
    |-- RequestError           the request must be changed
    |   |-- BadAddress         the base URL, or a proxy's, names no server
    |   |-- KeyRefused         401, 403, or a key that no header can hold
    |   |-- UnknownModel       404
    |   |-- TooLong            the prompt does not fit the context
    |   |-- FormatRefused      the server does not take this response_format
    |   |-- BadQuestion        empty, or longer than is taken
    |   |-- UnknownWay         the catalogue or a flag names no way of thinking
    |   |-- BadPrompt          a changed prompt asks for what nobody fills in
    |   |-- CannotSteer        the way of thinking cannot do that after these steps
    |   |-- FormRefused        the answer cannot have the form that was asked for
    |   |-- BudgetSpent        the chain's tokens ran out before its answer
    |   |-- DeadlinePassed     a step's time, or the chain's, was over before it was done
    |   |-- BadSetting         the environment holds what no setting can be
    |   `-- Refused            any other 4xx
    `-- EmptyAnswer            the model gave nothing but white space, however asked

A reply that cannot be used is no error but a value: replies.BadReply. Each error
says what happened (`message`) and what to do (`remedy`); `retryable` says whether
the same request may succeed later.
"""

from __future__ import annotations

from typing import ClassVar


class StepwiseError(Exception):
    """`code` is a stable word for readers, `message` and `remedy` are for people."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class ServerError(StepwiseError):
    code = "server"


class Unreachable(ServerError):
    code = "unreachable"
    retryable = True


class Busy(ServerError):
    """`retry_after` is in seconds, None where the server names no time."""

    code = "busy"
    retryable = True

    def __init__(self, message: str, remedy: str, retry_after: float | None = None) -> None:
        super().__init__(message, remedy)
        self.retry_after = retry_after


class ServerFault(ServerError):
    code = "fault"
    retryable = True


class Silent(ServerError):
    code = "silent"
    retryable = True


class NotOpenAI(ServerError):
    code = "not_openai"


class RequestError(StepwiseError):
    code = "request"


class BadAddress(RequestError):
    code = "address"


class KeyRefused(RequestError):
    code = "key"


class UnknownModel(RequestError):
    code = "model"


class TooLong(RequestError):
    code = "too_long"


class FormatRefused(RequestError):
    code = "format"


class BadQuestion(RequestError):
    code = "question"


class UnknownWay(RequestError):
    code = "way"


class BadPrompt(RequestError):
    code = "prompt"


class CannotSteer(RequestError):
    code = "steer"


class FormRefused(RequestError):
    code = "answer_form"


class BudgetSpent(RequestError):
    code = "budget"


class DeadlinePassed(RequestError):
    code = "deadline"


class BadSetting(RequestError):
    code = "setting"


class Refused(RequestError):
    code = "refused"


class EmptyAnswer(StepwiseError):
    code = "empty"
