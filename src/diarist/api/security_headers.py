"""The headers of every response that restrict what browsers do with it."""

from __future__ import annotations

SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    # The service has no pages, so a response that a browser shows as one may load nothing and run nothing.
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    # With no-referrer, browsers would send "Origin: null" with forms of the same origin.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Responses contain recordings' transcripts, so no cache keeps them, and no other origin embeds or frames them.

https://owasp.org/www-project-secure-headers/
"""
