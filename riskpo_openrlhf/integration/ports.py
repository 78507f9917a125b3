"""Keep a port between its choice and its use, so that jobs can start on one machine at the same moment.

OpenRLHF asks the kernel for a free port, lets it go, and binds it seconds later, in a rendezvous. Another process may
have got it by then: `EADDRINUSE`. A port that stays bound is given to nobody else. The rendezvous can bind it all the
same: torch and vLLM set SO_REUSEADDR, as we do here, and nothing listens on ours.
"""

from __future__ import annotations

import socket

_held: list[socket.socket] = []  # until the process ends


class HeldSocket(socket.socket):
    """A socket that keeps its port when OpenRLHF leaves its `with` block."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    def __exit__(self, *args):
        _held.append(self)


class sockets:
    """The part of the module `socket` that OpenRLHF's actors use to choose a port."""

    socket = HeldSocket


class HoldsPort:
    """An actor of OpenRLHF whose rendezvous port stays its own. Comes before OpenRLHF's class in the bases."""

    @staticmethod
    def _get_free_port() -> int:
        with HeldSocket() as held:
            held.bind(("", 0))
            return held.getsockname()[1]
