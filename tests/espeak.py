"""Say one text with eSpeak NG: ``python espeak.py LIBRARY DATA < text > samples`` (int16, 22 050 Hz, mono).

A program of its own because the library keeps a state that changes the sound of the next text by a little: in a fresh
process the same text always sounds the same, whatever other tests have had said before. Needs no other module.
"""

from __future__ import annotations

import ctypes
import sys

SAMPLE_RATE = 22_050  # Hz, of all voices of eSpeak NG
_WORDS_PER_MINUTE = 150
_SYNCHRONOUS, _DONT_EXIT = 2, 0x8000  # AUDIO_OUTPUT_SYNCHRONOUS, espeakINITIALIZE_DONT_EXIT
_RATE, _UTF8 = 1, 1  # espeakRATE, espeakCHARS_UTF8

_Receive = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


def speak(library_path: str, data_path: str, text: bytes) -> bytes:
    """The samples of ``text`` in UTF-8."""
    received = bytearray()

    @_Receive
    def receive(samples: int | None, count: int, events: int | None) -> int:
        if samples and count > 0:
            received.extend(ctypes.string_at(samples, 2 * count))
        return 0  # go on

    library = ctypes.CDLL(library_path)
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int,
        ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p,
    ]  # fmt: skip
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, data_path.encode(), _DONT_EXIT)
    if rate != SAMPLE_RATE:
        sys.exit(f"eSpeak NG does not start with its data in {data_path}: {rate}")
    library.espeak_SetSynthCallback(receive)
    library.espeak_SetVoiceByName(b"en-us")
    library.espeak_SetParameter(_RATE, _WORDS_PER_MINUTE, 0)
    if library.espeak_Synth(text, len(text) + 1, 0, 1, 0, _UTF8, None, None) != 0 or not received:
        sys.exit(f"eSpeak NG does not say {text!r}")
    return bytes(received)


if __name__ == "__main__":
    sys.stdout.buffer.write(speak(sys.argv[1], sys.argv[2], sys.stdin.buffer.read()))
