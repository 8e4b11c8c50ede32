//! RTCP packets to values and back. Read RFC 3550 §6 before touching this file.
