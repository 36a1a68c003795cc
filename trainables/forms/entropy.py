"""Bytes of one kind, written as short as the standard library can: as they are, Huffman-coded (zlib), or by lzma.

Values of weights are next to independent of each other, so that what counts is how often each byte occurs. On kept weights
of a CNN of 73,000 (50 to 98 % pruned) zlib's Huffman codes took 2 to 16 % less than lzma for bytes of fp16 and fp32, were
15 times as fast, and lay within 1 to 6 % of the entropy; for int8 lzma, which adapts from layer to layer, took 1 to 3 %
less. The shortest is taken.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trainables.records.names import InputError

STORED, HUFFMAN, LZMA = range(3)
MOST_LZMA = 1 << 22
"""Bytes beyond which lzma isn't tried: it takes a second for two million, and gains little over Huffman codes."""
NOISE = 0.98
"""Nor is it where Huffman codes don't save so much as this share: the lower bytes of floats are noise."""
FILTERS: list[dict[str, Any]] = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 20, "lc": 0, "lp": 0, "pb": 0}]
"""They aren't read from the file, and with them goes the memory that decoding takes. No byte is told by its neighbours."""
RAW_DEFLATE = -15


def _huffman(content: bytes) -> bytes:
    coder = zlib.compressobj(9, zlib.DEFLATED, RAW_DEFLATE, 9, zlib.Z_HUFFMAN_ONLY)
    return coder.compress(content) + coder.flush()


def _lzma(content: bytes) -> bytes:
    return lzma.compress(content, format=lzma.FORMAT_RAW, filters=FILTERS)


def _inflate(content: bytes, most: int) -> bytes:
    return zlib.decompressobj(RAW_DEFLATE).decompress(content, most)


def _unlzma(content: bytes, most: int) -> bytes:
    return lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=FILTERS).decompress(content, most)


DECODERS: Mapping[int, Callable[[bytes, int], bytes]] = {
    STORED: lambda content, _most: content,
    HUFFMAN: _inflate,
    LZMA: _unlzma,
}
"""They never give more than one byte beyond what is expected, whatever the content asks for."""


def pack(content: bytes) -> bytes:
    """The shortest way to write ``content``: how, the length, and the bytes."""
    ways = {STORED: content, HUFFMAN: _huffman(content)}
    if len(content) <= MOST_LZMA and len(ways[HUFFMAN]) < NOISE * len(content):
        ways[LZMA] = _lzma(content)
    how = min(ways, key=lambda way: len(ways[way]))
    return bytes([how]) + varint(len(ways[how])) + ways[how]


def varint(number: int) -> bytes:
    """A whole number from 0 in as few bytes as it needs, seven bits a byte."""
    found = bytearray()
    while number >= 128:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


@dataclass
class Reader:
    """Reads a file from front to back; InputError where it ends too early or isn't as it must be."""

    content: bytes
    at: int = 0

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        if count > len(self.content) - self.at:
            raise damaged("it ends too early")
        self.at += count
        return self.content[self.at - count : self.at]

    def varint(self) -> int:
        """The next whole number."""
        number = shift = 0
        while shift < 63:
            (byte,) = self.take(1)
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7
        raise damaged("a length is out of range")

    def unpack(self, most: int) -> bytes:
        """What ``pack`` wrote, of at most so many bytes; no more than these are ever held."""
        (how,) = self.take(1)
        content = self.take(self.varint())
        if how not in DECODERS:
            raise damaged(f"it is coded in a way that isn't known ({how})")
        try:
            found = DECODERS[how](content, most + 1)
        except (zlib.error, lzma.LZMAError) as error:
            raise damaged(str(error)) from None
        if len(found) > most:
            raise damaged("it holds more than the network")
        return found

    def exactly(self, count: int) -> bytes:
        """What ``pack`` wrote, of so many bytes; nothing is there for none."""
        found = self.unpack(count) if count else b""
        if len(found) != count:
            raise damaged("it holds less than the network")
        return found

    @property
    def left(self) -> int:
        """Bytes that haven't been read."""
        return len(self.content) - self.at


def damaged(what: str) -> InputError:
    """The error of a file that isn't as it was written."""
    return InputError(f"the file is damaged ({what}); make it again")
