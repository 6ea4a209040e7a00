"""Text from strangers, made safe for a terminal; nothing here knows what it says."""


def printable(text: str, *, lines: bool = False) -> str:
    """The text with what could steer a terminal written out, since names come from strangers."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or (lines and one == "\n") else ascii(one)[1:-1] for one in text)
