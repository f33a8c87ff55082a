DAMAGE: frozenset[int]
RANGE: int
UNKNOWN_CODEC: int
CUT_PIXELS: int

class CoreError(Exception):
    status: int
    message: str
    frame: int | None
    found: int
    expected: int
    def __init__(
        self, status: int, message: str, frame: int | None = None, found: int = 0, expected: int = 0
    ) -> None: ...

def error_for(status: int, frame: int | None = None, found: int = 0, expected: int = 0) -> Exception: ...
