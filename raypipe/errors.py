"""Everything raypipe raises on purpose, and every reason a series can end with.

    RaypipeError
    +-- ConfigError (ValueError)     a config or an argument is wrong: the caller mends it
    +-- SeriesError                  the data of one series is at fault: it becomes a row
    +-- CheckpointError              weights are missing, damaged or made for other preprocessing
    +-- EngineError                  the language model's engine could not start or answer
    +-- RunStoppedError              a run ended itself early, because too much of it failed

In: field, rule, value and remedy. Out: messages that name them. They never hold patient data: no
tag values of identity, no file names from an archive. Does not know: who raises what.
"""

from enum import StrEnum


class Status(StrEnum):
    """How a series ended."""

    OK = "ok"
    REJECTED = "rejected"  # the input is not what raypipe works on; running again changes nothing
    FAILED = "failed"  # something broke; running again may help


class Reason(StrEnum):
    """Why a series is not "ok". The slug is what the ledger holds."""

    # not what raypipe works on, seen in the header
    NOT_AN_IMAGE = "not_an_image"
    NOT_CT = "not_ct"
    MODALITY_MISSING = "modality_missing"
    LOCALIZER = "localizer"
    SECONDARY_CAPTURE = "secondary_capture"
    NO_PIXEL_DATA = "no_pixel_data"
    UNSUPPORTED_COLOR = "unsupported_color"
    ARCHIVE_MEMBER_UNREADABLE = "archive_member_unreadable"
    HEADER_UNREADABLE = "header_unreadable"
    # geometry
    GEOMETRY_MISSING = "geometry_missing"
    GEOMETRY_INVALID = "geometry_invalid"
    SLICE_GAP = "slice_gap"
    DUPLICATE_SLICE = "duplicate_slice"
    SHAPE_MISMATCH = "shape_mismatch"
    TOO_LARGE = "too_large"
    # pixels
    TRANSFER_SYNTAX_MISMATCH = "transfer_syntax_mismatch"
    TRANSFER_SYNTAX_UNSUPPORTED = "transfer_syntax_unsupported"
    PIXELS_UNREADABLE = "pixels_unreadable"
    HU_IMPLAUSIBLE = "hu_implausible"
    LABEL_MAP = "label_map"
    # the machine, not the data
    SOURCE_MISSING = "source_missing"
    SOURCE_UNREADABLE = "source_unreadable"
    SOURCE_CHANGED = "source_changed"
    DECODER_CRASHED = "decoder_crashed"
    DECODER_TIMEOUT = "decoder_timeout"
    DECODER_MEMORY = "decoder_memory"
    QUARANTINED = "quarantined"
    ENGINE_FAILED = "engine_failed"
    INTERNAL_ERROR = "internal_error"


FAILURES = frozenset(
    {
        Reason.SOURCE_MISSING,
        Reason.SOURCE_UNREADABLE,
        Reason.SOURCE_CHANGED,
        Reason.DECODER_CRASHED,
        Reason.DECODER_TIMEOUT,
        Reason.DECODER_MEMORY,
        Reason.QUARANTINED,
        Reason.ENGINE_FAILED,
        Reason.INTERNAL_ERROR,
    }
)
"""The reasons that running again may cure: they end as "failed", all others as "rejected"."""


class RaypipeError(Exception):
    """The root of the tree."""


class ConfigError(RaypipeError, ValueError):
    """A config or an argument is wrong."""


class SeriesError(RaypipeError):
    """One series cannot be worked on.

    Args:
        reason: the slug for the ledger.
        message: field, rule and measured value; no patient data, no file names.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{reason.value}: {message}")
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type["SeriesError"], tuple[Reason, str]]:
        """Keep both arguments when an error crosses a process border."""
        return (SeriesError, (self.reason, self.message))

    @property
    def status(self) -> Status:
        """ "failed" where running again may help, else "rejected"."""
        return Status.FAILED if self.reason in FAILURES else Status.REJECTED


def source_changed(indexed_bytes: int, found_bytes: int) -> SeriesError:
    """The error for an object that is not the one that was indexed any more."""
    return SeriesError(
        Reason.SOURCE_CHANGED,
        f"an object had {indexed_bytes} bytes when it was indexed and has {found_bytes} now: "
        f"index again",
    )


class CheckpointError(RaypipeError):
    """Weights are missing, damaged or made for other preprocessing."""


class EngineError(RaypipeError):
    """The language model's engine could not start or answer."""


class RunStoppedError(RaypipeError):
    """A run ended itself early; what is committed stays, and the same command goes on."""
