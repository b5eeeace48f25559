"""Which ports of 127.0.0.1 are free, and a claim on them until somebody listens there."""

import secrets
import socket
from contextlib import ExitStack

_BELOW_EPHEMERAL = range(20_000, 30_000)
_CLAIM = "\0director-port-{}"


class Claims(ExitStack):
    """Ports that were found free and are kept free for us.

    A part listens seconds after its port was chosen, and another Director that starts meanwhile
    would choose the same. A claim is an abstract Unix socket: one of a name in each network
    namespace, as a port is, and gone with the process however that ends (unix(7))."""

    def take(self, port: int) -> bool:
        """Claim a port; False where somebody listens there or has claimed it."""
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(_CLAIM.format(port))
        except OSError:
            claim.close()
            return False
        if _listened(port):
            claim.close()
            return False
        self.enter_context(claim)
        return True

    def any(self) -> int:
        """Claim a free port below the ephemeral range, so that no connection takes it meanwhile."""
        while not self.take(port := secrets.choice(_BELOW_EPHEMERAL)):
            pass
        return port


def _listened(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
