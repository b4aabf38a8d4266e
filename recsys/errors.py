"""Errors that name the culprit, the value and the way out."""


class RecsysError(Exception):
    """A fault that a person can act on.

    Shown to people as one sentence, by a task as the last line of its log and by an endpoint as its error
    body. A programming mistake must not be dressed up as one of these.
    """

    def __init__(self, culprit: str, value: object, way_out: str):
        self.culprit, self.value, self.way_out = culprit, value, way_out
        super().__init__(f"{culprit}: {value}. {way_out}")


class UnusableInput(RecsysError):
    """A file or table that cannot be used at all, as opposed to one with some refused rows."""


class MissingArtifact(RecsysError):
    """Something that an earlier station should have written is not there."""


class CheckFailed(RecsysError):
    """A judgement with severity `fail`; nothing downstream may run."""


class ServiceUnavailable(RecsysError):
    """A service of the platform does not answer."""
