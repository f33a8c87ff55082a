"""What a round of test_publishing.py begins with, and who does what in it."""

import os
import random

SIBLINGS = ["TS_01.st", "TS_01.ali", "TS_01.rec", "TS_01.mrc", "TS_01.mrcs", "TS_01"]
FORCE = ["--force"]


class Plot:
    """What a round begins with and who does what in it."""

    def __init__(self, dice: random.Random, first: int, caseless: bool) -> None:
        self.dice = dice
        self.next = first
        self.plain: dict[str, int] = {}  # sources by name
        self.archives: dict[str, tuple[int, str]] = {}  # name -> content, name of its source
        self.commands: list[list[str]] = []
        self.camera: list[tuple[str, int, str]] = []
        self.released: set[int] = set()  # may be lost, because somebody asks for it
        self.kind = dice.choice(sorted(PLOTS))
        PLOTS[self.kind](self)
        for words in self.commands:
            if caseless and dice.random() < 0.15 and words[-1] != ".":
                words[-1] = dice.choice([words[-1].lower(), words[-1].upper()])

    def new(self) -> int:
        self.next += 1
        return self.next

    def flags(self, *, force: float = 0.25, remove: float = 0.5, skip: float = 0.25) -> list[str]:
        dice = self.dice
        words = ["-n", "1"]
        if dice.random() < force:
            words.append(dice.choice(["--force", "-f"]))
        if dice.random() < remove:
            words.append("--remove")
        elif dice.random() < 0.3:
            words.append("--check")
        if dice.random() < skip:
            words.append("--skip-existing")
        words += dice.choice([[], [], ["-q"], ["--json"], ["--json"]])
        words += dice.choice([[], ["-c", "lz4"]])
        return words

    def old_archive(self, stem: str, source: str, number: int) -> None:
        self.archives[stem + ".mrcz"] = (number, source)

    def siblings(self) -> None:
        """`ls TS_01.* | xargs -P8 mrcz compress`."""
        names = self.dice.sample(SIBLINGS, self.dice.randint(2, 5))
        for name in names:
            self.plain[name] = self.new()
        if self.dice.random() < 0.4:  # one is archived already, by whatever version, perhaps as it was before
            name = self.dice.choice(names)
            same = self.plain[name] if self.dice.random() < 0.5 else self.new()
            self.archives[self.dice.choice([os.path.splitext(name)[0], name]) + ".mrcz"] = (same, name)
        settled = self.flags() if self.dice.random() < 0.5 else None
        for _ in range(8):
            self.commands.append(["compress", *(settled or self.flags()), self.dice.choice(names)])

    def one(self) -> None:
        """The same source eight times."""
        name = self.dice.choice([*SIBLINGS, "movie.mrc.gz"])
        self.plain[name] = self.new()
        self.commands = [["compress", *self.flags(), name] for _ in range(8)]

    def wrapped(self) -> None:
        """movie.mrc and movie.mrc.gz, the same movie or not."""
        number = self.new()
        self.plain["movie.mrc"] = number
        self.plain["movie.mrc.gz"] = number if self.dice.random() < 0.5 else self.new()
        if self.dice.random() < 0.5:
            self.plain["movie.map"] = self.new()
        names = sorted(self.plain)
        self.commands = [["compress", *self.flags(), self.dice.choice(names)] for _ in range(8)]

    def explicit(self) -> None:
        """Different sources, one destination."""
        for name in SIBLINGS[:4]:
            self.plain[name] = self.new()
        if self.dice.random() < 0.3:
            self.archives["same.mrcz"] = (self.new(), "other.mrc")
        for _ in range(8):
            self.commands.append(["compress", *self.flags(), "-o", "same.mrcz", self.dice.choice(SIBLINGS[:4])])

    def folders(self) -> None:
        """A whole folder by several at once, beside the sources or elsewhere."""
        for name in SIBLINGS[:4]:
            self.plain[name] = self.new()
        for _ in range(8):
            words = self.flags(skip=0.5)
            if self.dice.random() < 0.5:
                words += ["-o", "out/"]
            if self.dice.random() < 0.5:
                words += ["-r", "."]
            else:
                words += self.dice.sample(SIBLINGS[:4], 3)
            self.commands.append(["compress", *words])

    def back(self) -> None:
        """Compressed by some and restored by others."""
        names = self.dice.sample(SIBLINGS[:4], 2)
        for name in names:
            self.plain[name] = self.new()
            if self.dice.random() < 0.6:
                archive = os.path.splitext(name)[0] if name.endswith(".mrc") or self.dice.random() < 0.3 else name
                self.archives[archive + ".mrcz"] = (self.plain[name], name)
                if self.dice.random() < 0.5:
                    del self.plain[name]
        archives = sorted(self.archives) + [f"{n}.mrcz" for n in names if not n.endswith(".mrc")]
        for _ in range(8):
            if self.dice.random() < 0.5:
                self.commands.append(["compress", *self.flags(), self.dice.choice(names)])
            else:
                words = [word for word in self.flags(force=0) if word not in ("-c", "lz4")]
                if self.dice.random() < 0.2:
                    words += ["-o", "restored.mrc"]
                elif self.dice.random() < 0.3:
                    words += FORCE  # the same content comes back
                self.commands.append(["decompress", *words, self.dice.choice(archives)])

    def restored(self) -> None:
        """Different archives, one destination, replaced by request: only the last one has to be there."""
        for k in range(3):
            number = self.new()
            self.archives[f"m{k}.mrc.mrcz"] = (number, f"m{k}.mrc")
        forced = removed = False
        for _ in range(8):
            words = [word for word in self.flags(force=0.5) if word not in ("-c", "lz4")]
            forced |= "-f" in words or "--force" in words
            removed |= "--remove" in words
            self.commands.append(["decompress", *words, "-o", "one.mrc", self.dice.choice(sorted(self.archives))])
        if forced and removed:
            self.released.update(number for number, _ in self.archives.values())

    def filmed(self) -> None:
        """A camera gives the sources new contents while they are compressed."""
        names = self.dice.sample([*SIBLINGS[:4], "movie.mrc.gz"], 2)
        for name in names:
            self.plain[name] = self.new()
        for _ in range(self.dice.randint(1, 6)):
            self.camera.append((self.dice.choice(names), self.new(), self.dice.choice(CAMERA)))
        self.commands = [["compress", *self.flags(), self.dice.choice(names)] for _ in range(8)]

    def appended(self) -> None:
        """Frames are added to an archive that others want to make anew."""
        number = self.new()
        self.plain["grow.mrc"] = number
        self.plain["other.mrc"] = self.new()
        self.archives["grow.mrcz"] = (number, "grow.mrc")
        for k in range(8):
            if k < 3:
                self.commands.append(["append", "grow.mrcz"])
            else:
                source = self.dice.choice(["grow.mrc", "grow.mrc", "other.mrc"])
                self.commands.append(["compress", *self.flags(force=0.8), "-o", "grow.mrcz", source])
        self.dice.shuffle(self.commands)


PLOTS = {
    "siblings": Plot.siblings,
    "one": Plot.one,
    "wrapped": Plot.wrapped,
    "explicit": Plot.explicit,
    "folders": Plot.folders,
    "back": Plot.back,
    "restored": Plot.restored,
    "filmed": Plot.filmed,
    "appended": Plot.appended,
}
CAMERA = ["replace", "in place"]
