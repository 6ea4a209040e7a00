"""Text of other encodings as UTF-8 and back, byte for byte; what is no text in them becomes what is no UTF-8."""

import codecs
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from ingestkit.csvmarks import Positions

# The five bytes that cp1252 leaves undefined, as bytes that UTF-8 never has: F8 to FC.
UNDEFINED = (0x81, 0x8D, 0x8F, 0x90, 0x9D)
STAND_INS = {byte: 0xDC00 + 0xF8 + number for number, byte in enumerate(UNDEFINED)}
CP1252 = "".join(chr(STAND_INS[byte]) if byte in STAND_INS else bytes([byte]).decode("cp1252") for byte in range(256))
TO_CP1252 = codecs.charmap_build(CP1252)
# Half a unit at the end of UTF-16: FF, and its two halves as bytes that go on.
ODD = 0xFF

MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)


def marked(head: bytes) -> tuple[str | None, int]:
    """The encoding that a byte order mark tells of, and how many bytes it takes."""
    return next(((encoding, len(mark)) for mark, encoding in MARKS if head.startswith(mark)), (None, 0))


def as_utf8(pieces: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """The same text in UTF-8. No piece is empty; a character is never cut."""
    match encoding:
        case "utf-8":
            return pieces
        case "latin-1":
            return (piece.decode("latin-1").encode() for piece in pieces)
        case "cp1252":
            return (
                codecs.charmap_decode(piece, "strict", CP1252)[0].encode("utf-8", "surrogateescape") for piece in pieces
            )
    return _from_utf_16(pieces, codecs.utf_16_le_decode if encoding == "utf-16-le" else codecs.utf_16_be_decode)


def _from_utf_16(pieces: Iterator[bytes], decode: Callable[[bytes, str, bool], tuple[str, int]]) -> Iterator[bytes]:
    held = b""
    for piece in pieces:
        held += piece
        text, taken = decode(held, "surrogatepass", False)
        held = held[taken:]
        if text:
            yield text.encode("utf-8", "surrogatepass")
    odd = held[-1] if len(held) % 2 else None
    text, _ = decode(held[: len(held) & ~1], "surrogatepass", True)
    rest = text.encode("utf-8", "surrogatepass")
    if odd is not None:
        rest += bytes([ODD, 0x80 | odd >> 4, 0x80 | odd & 15])
    if rest:
        yield rest


def original(text: bytes, encoding: str) -> bytes:
    """The bytes that became this UTF-8."""
    match encoding:
        case "utf-8":
            return text
        case "latin-1":
            return text.decode().encode("latin-1")
        case "cp1252":
            return codecs.charmap_encode(text.decode("utf-8", "surrogateescape"), "strict", TO_CP1252)[0]
    whole, odd, halves = text.partition(bytes([ODD]))
    units = whole.decode("utf-8", "surrogatepass").encode(encoding, "surrogatepass")
    return units + bytes([(halves[0] & 15) << 4 | halves[1] & 15]) if odd else units


def original_offsets(text: bytes, offsets: Positions, encoding: str) -> Positions:
    """Where in the original stands what stands at these ascending offsets of its UTF-8."""
    if encoding == "utf-8" or not len(offsets):
        return offsets
    sizes = np.zeros(int(offsets[-1]) + 1, np.int32)
    np.cumsum(_sizes(text, int(offsets[-1]), encoding), out=sizes[1:])
    return sizes[offsets].astype(np.int64)


def original_size(text: bytes, size: int, encoding: str) -> int:
    """How many bytes the first `size` bytes of this UTF-8 have been."""
    return size if encoding == "utf-8" else int(_sizes(text, size, encoding).sum(dtype=np.int64))


def _sizes(text: bytes, size: int, encoding: str) -> npt.NDArray[np.uint8]:
    """How many bytes of the original stand behind each byte of UTF-8; the first of a character counts for all."""
    units = np.ones(256, np.uint8)
    if encoding.startswith("utf-16"):
        units[:ODD] = 2
        units[0xF0:0xF8] = 4
    units[0x80:0xC0] = 0
    return units[np.frombuffer(text, np.uint8, size)]
