"""Completions for shells, made from the parsers: a new option is completed without anybody thinking of it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Command", "commands_of", "completion"]

_FOLDERS = ("DIR", "MOUNTPOINT")


@dataclass(frozen=True)
class Command:
    """One command as a shell sees it: its words after ``mrcz``, its options, its operands and what comes next.

    ``operands`` are the words that may stand in any place, None where files may.
    """

    words: tuple[str, ...]
    help: str
    options: tuple[argparse.Action, ...]
    operands: tuple[str, ...] | None
    folders: bool


def commands_of(parser: argparse.ArgumentParser, words: tuple[str, ...] = (), text: str = "") -> Iterator[Command]:
    """The parser itself, then each of its commands, and theirs."""
    options = tuple(a for a in parser._actions if a.option_strings and a.help != argparse.SUPPRESS)
    operands = [a for a in parser._actions if not a.option_strings]
    below = [a for a in operands if isinstance(a, argparse._SubParsersAction)]
    words_here = tuple(str(choice) for a in operands for choice in a.choices or ())
    folders = bool(operands) and all(a.metavar in _FOLDERS for a in operands)
    yield Command(words, text, options, words_here or (None if operands else ()), folders)
    for action in below:
        helps = {str(choice.dest): choice.help or "" for choice in action._choices_actions}
        for name, sub in action.choices.items():
            yield from commands_of(sub, (*words, name), helps.get(name, ""))


def _takes_value(option: argparse.Action) -> bool:
    return option.nargs is None or (option.nargs not in (0, "?"))


def _values(option: argparse.Action) -> list[str] | None:
    """What may follow an option: words, [] for anything but a file name, None for a file name."""
    if option.choices is not None:
        return [str(choice) for choice in option.choices]
    return None if option.metavar in ("FILE", "PATH", "IN", "OUT", *_FOLDERS) else []


def _summary(option: argparse.Action) -> str:
    return (option.help or "").replace("%%", "%").split("; ")[0].split(" (")[0]


def completion(shell: str, parser: argparse.ArgumentParser) -> str:
    """The script that makes `shell` ("bash", "zsh" or "fish") complete the command line of `parser`."""
    commands = list(commands_of(parser))
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](commands) + "\n"


def _bash(commands: list[Command]) -> str:
    # In bash 3.2, as macOS has it, too. The command is found as the longest run of words that is one.
    names, values, operands, flags = [], [], [], []
    for command in commands:
        key = " ".join(command.words)
        names.append(f"'{key}'")
        flags.append(f"    '{key}') flags='{' '.join(s for o in command.options for s in o.option_strings)}' ;;")
        words = "FOLDERS" if command.folders else "FILES" if command.operands is None else " ".join(command.operands)
        operands.append(f"    '{key}') words='{words}' ;;")
        for option in command.options:
            if not _takes_value(option):
                continue
            found = _values(option)
            text = " ".join(found) if found is not None else "FOLDERS" if option.metavar in _FOLDERS else "FILES"
            patterns = "|".join(f"'{key} {string}'" for string in option.option_strings)
            values.append(f"    {patterns}) words='{text}'; value=1 ;;")
    return "\n".join(
        [
            "# bash completion for mrcz",
            "_mrcz() {",
            "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} key= try flags= words= value= i",
            # Names with spaces: words end with lines alone.
            "  local IFS=$'\\n'",
            "  COMPREPLY=()",
            # --filter=none comes as three words
            '  if [[ $cur == "=" ]]; then cur=; elif [[ $prev == "=" ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi',
            "  for ((i = 1; i < COMP_CWORD; i++)); do",
            '    try="${key:+$key }${COMP_WORDS[i]}"',
            '    case "$try" in',
            "    " + "|".join(names) + ') key="$try" ;;',
            "    esac",
            "  done",
            '  case "$key" in',
            *flags,
            "  esac",
            '  case "$key" in',
            *operands,
            "  esac",
            '  case "$key $prev" in',
            *values,
            "  esac",
            "  if [[ -z $value && $cur == -* ]]; then words=$flags; fi",
            '  case "$words" in',
            '  FILES) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$cur")) ;;',
            '  FOLDERS) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -d -- "$cur")) ;;',
            '  *) COMPREPLY=($(compgen -W "${words// /$\'\\n\'}" -- "$cur")) ;;',
            "  esac",
            "}",
            "complete -F _mrcz mrcz",
        ]
    )


def _fish(commands: list[Command]) -> str:
    lines = ["# fish completion for mrcz", "complete -c mrcz -f"]
    for command in commands:
        when = _fish_condition(command, commands)
        for below in commands:
            if below.words[:-1] == command.words and below.words:
                lines.append(f"complete -c mrcz {when} -a {below.words[-1]} -d {_fish_quote(below.help)}")
        if command.operands is None:
            files = "-a '(__fish_complete_directories)'" if command.folders else "-F"
            lines.append(f"complete -c mrcz {when} {files}")
        elif not any(below.words[:-1] == command.words and below.words for below in commands):
            for word in command.operands:
                lines.append(f"complete -c mrcz {when} -a {word}")
        for option in command.options:
            line = f"complete -c mrcz {when}"
            for string in option.option_strings:
                line += f" -l {string[2:]}" if string.startswith("--") else f" -s {string[1:]}"
            if _takes_value(option):
                found = _values(option)
                if found is None:
                    line += " -r -a '(__fish_complete_directories)'" if option.metavar in _FOLDERS else " -r -F"
                else:
                    line += " -x" + (f" -a {_fish_quote(' '.join(found))}" if found else "")
            lines.append(f"{line} -d {_fish_quote(_summary(option))}")
    return "\n".join(lines)


def _fish_condition(command: Command, commands: list[Command]) -> str:
    if not command.words:
        return "-n __fish_use_subcommand"
    seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.words)
    below = [other.words[-1] for other in commands if other.words and other.words[:-1] == command.words]
    if below:
        seen += f"; and not __fish_seen_subcommand_from {' '.join(below)}"
    return f'-n "{seen}"'


def _fish_quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _zsh(commands: list[Command]) -> str:
    lines = ["#compdef mrcz", "# zsh completion for mrcz", ""]
    for command in commands:
        below = [other for other in commands if other.words and other.words[:-1] == command.words]
        lines += [f"{_zsh_name(command.words)}() {{", "  local curcontext=$curcontext state line"]
        lines.append("  _arguments -C -s -S \\")
        lines += [f"    {_zsh_option(option)} \\" for option in command.options]
        if below:
            lines += ["    '1: :->command' \\", "    '*:: :->rest'", "  case $state in", "  command)"]
            lines += ["    local -a known=("]
            lines += [f"      {_zsh_quote(other.words[-1].replace(':', '') + ':' + other.help)}" for other in below]
            lines += ["    )", "    _describe command known ;;", "  rest)", "    case $line[1] in"]
            lines += [f"    {other.words[-1]}) {_zsh_name(other.words)} ;;" for other in below]
            lines += ["    esac ;;", "  esac"]
        elif command.operands is None:
            lines.append("    '*:folder:_files -/'" if command.folders else "    '*:file:_files'")
        else:
            lines.append(f"    '*: :({' '.join(command.operands)})'")
        lines += ["}", ""]
    # Autoloaded, the file is the function; sourced, it is registered.
    lines.append('if [ "$funcstack[1]" = "_mrcz" ]; then _mrcz "$@"; else compdef _mrcz mrcz; fi')
    return "\n".join(lines)


def _zsh_name(words: tuple[str, ...]) -> str:
    return "_mrcz" + "".join(f"_{word}" for word in words)


def _zsh_option(option: argparse.Action) -> str:
    strings = option.option_strings
    text = _summary(option).replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
    value = ""
    if _takes_value(option):
        found = _values(option)
        if found is None:
            value = ":folder:_files -/" if option.metavar in _FOLDERS else ":file:_files"
        else:
            value = f": :({' '.join(found)})" if found else ": :"
    repeated = isinstance(option, argparse._AppendAction)
    if len(strings) == 1 or repeated:
        star = "*" if repeated else ""
        return " ".join(_zsh_quote(f"{star}{string}[{text}]{value}") for string in strings)
    exclusive = f"({' '.join(strings)})"
    return f"{_zsh_quote(exclusive)}{{{','.join(strings)}}}{_zsh_quote(f'[{text}]{value}')}"


def _zsh_quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
