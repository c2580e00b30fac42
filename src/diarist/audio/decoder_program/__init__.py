"""The program of the decoder process, which reads a recording on standard input and writes messages to its output.

All untrusted data is parsed here, under limits, where a crash does no harm. The process needs only the standard library
and PyAV, so that it starts in a tenth of a second: the modules of this package import nothing else of ``diarist``, and
import each other by relative names, because the process knows this package as ``decoder_program`` (see ``__main__``).
The parent imports only the constants and the layout of the messages.

FFmpeg receives an open descriptor and only the protocol ``fd``, so that even a playlist that passes the format list
cannot open any file. Only the listed decoders run, all of them for audio. The list also applies to FFmpeg's own
probing, which would otherwise try video decoders.
"""
