"""A shell script as simple commands with the line of each word. Comments, quotes, continuations, heredocs and $(…) are understood.

It does not run or expand anything; what it cannot read it leaves out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from labkit.facts.lint.model import Command, Setting, Word

_ASSIGN = re.compile(r"([A-Za-z_]\w*)\+?=(.*)", re.DOTALL)
_PLACEHOLDER = re.compile(r"<[A-Za-z][\w ./:|-]*>")
_LEAD = {
    "if",
    "then",
    "else",
    "elif",
    "while",
    "until",
    "do",
    "!",
    "{",
    "}",
    "(",
    ")",
    "time",
    "fi",
    "done",
    "&",
    "exec",
    "command",
    "nohup",
    "builtin",
    "setsid",
}
_SHELLS = {"sh", "bash", "ash", "dash", "zsh"}
_DECLARE = {"export", "readonly", "declare", "typeset", "local"}


@dataclass
class Heredoc:
    """Text between `<<EOF` and `EOF`; `target` is the file it is written to, or the program that reads it."""

    text: str
    line: int
    target: str


@dataclass
class Script:
    commands: list[Command] = field(default_factory=list)
    heredocs: list[Heredoc] = field(default_factory=list)


def parse(text: str, first: int = 1, where: str = "script", group: int = 0, escapes: bool = True) -> Script:
    """Read a script whose first line is the file's line `first`."""
    out = Script()
    reader = _Reader(text, first, escapes)
    for words in reader.statements():
        _add(out, words, where, group)
    for delimiter_words, body, line in reader.bodies:
        out.heredocs.append(Heredoc(body, line, _target(delimiter_words)))
    for inner, line in reader.nested:
        nested = parse(inner, line, where, group, escapes)
        out.commands += nested.commands
        out.heredocs += nested.heredocs
    return out


def from_words(words: list[Word], where: str, group: int = 0) -> Script:
    """A command given as a list; `sh -c TEXT` is read as a script."""
    out = Script()
    _add(out, words, where, group)
    return out


def _target(words: list[Word]) -> str:
    """`cat > Modelfile`, `tee Modelfile`: the file; else the program's name."""
    plain = [w.text for w in words]
    for n, word in enumerate(plain):
        if word in {">", ">>", ">|"} and n + 1 < len(plain):
            return plain[n + 1]
    if "tee" in plain:
        return next((w for w in plain[plain.index("tee") + 1 :] if not w.startswith("-")), "tee")
    return plain[0] if plain else ""


def _add(out: Script, words: list[Word], where: str, group: int) -> None:
    words = _bare(words)
    env: list[Setting] = []
    while words:
        found = None if words[0].quoted else _ASSIGN.fullmatch(words[0].text)
        if found:
            env.append(Setting(found[1], found[2], words[0].line))
            words = words[1:]
        elif words[0].text in _LEAD | {"sudo", "env"}:
            words = _skip_flags(words[1:]) if words[0].text in {"sudo", "env"} else words[1:]
        elif words[0].text == "timeout":
            words = _skip_flags(words[1:])[1:]
        else:
            break
    if words and words[0].text in _DECLARE:
        for word in words[1:]:
            if found := _ASSIGN.fullmatch(word.text):
                env.append(Setting(found[1], found[2], word.line))
        words = words[:1]
    if words or env:
        out.commands.append(Command(words, env, where, group))
    if words and words[0].text.rsplit("/", 1)[-1] in _SHELLS:
        at = next((n for n, word in enumerate(words[1:], 1) if re.fullmatch(r"-[a-z]*c", word.text)), len(words))
        if at + 1 < len(words):
            out.commands += parse(words[at + 1].text, words[at + 1].line, where, group).commands


def _skip_flags(words: list[Word]) -> list[Word]:
    while words and words[0].text.startswith("-"):
        takes = words[0].text in {"-u", "-g", "-s", "-k", "--signal", "--user"}
        words = words[2:] if takes else words[1:]
    return words


def _bare(words: list[Word]) -> list[Word]:
    """Without redirections."""
    out, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif not word.quoted and re.fullmatch(r"\d?(>>?|<|>\||<<<|[<>]&)|&>>?", word.text):
            skip = True
        elif not word.quoted and re.fullmatch(r"\d?[<>]&[\d-]", word.text):
            continue
        else:
            out.append(word)
    return out


class _Reader:
    """Cuts text into words and statements, and notes heredocs and command substitutions on the way."""

    def __init__(self, text: str, first: int, escapes: bool) -> None:
        self.text, self.line, self.at, self.escapes = text, first, 0, escapes
        self.bodies: list[tuple[list[Word], str, int]] = []
        self.nested: list[tuple[str, int]] = []

    def statements(self) -> list[list[Word]]:
        done: list[list[Word]] = []
        words: list[Word] = []
        waiting: list[tuple[str, list[Word]]] = []
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "\n":
                self.at += 1
                self.line += 1
                for end, owner in waiting:
                    body, line = self._body(end)
                    self.bodies.append((owner, body, line))
                waiting = []
                done, words = [*done, words], []
            elif char in " \t\r":
                self.at += 1
            elif self.escapes and self.text.startswith("\\\n", self.at):  # the line goes on
                self.at += 2
                self.line += 1
            elif char == "#" and (self.at == 0 or self.text[self.at - 1] in " \t\n;(&|"):
                stop = self.text.find("\n", self.at)
                self.at = len(self.text) if stop < 0 else stop
            elif (
                char in ";|"
                or (char == "&" and not self.text.startswith("&>", self.at))
                or (char in "()" and not (char == "(" and self.text[self.at - 1 : self.at] == "$"))
            ):
                self.at += 1
                done, words = [*done, words], []
            elif found := re.compile(r"<<-?[ \t]*(['\"]?)(\w+)\1").match(self.text, self.at):
                self.at = found.end()
                waiting.append((found[2], words))
            elif found := _PLACEHOLDER.match(self.text, self.at):
                words.append(Word(self._word(found.end() - self.at), self.line))
            elif found := re.compile(r"\d?(>&[\d-]?|<&[\d-]?|>>|>\||<<<|>|<)|&>>?").match(self.text, self.at):
                self.at = found.end()
                words.append(Word(found[0], self.line))
            else:
                line = self.line
                quoted = char in "'\""
                words.append(Word(self._word(), line, quoted))
        return [words for words in [*done, words] if words]

    def _body(self, end: str) -> tuple[str, int]:
        first, lines = self.line, []
        while self.at < len(self.text):
            stop = self.text.find("\n", self.at)
            stop = len(self.text) if stop < 0 else stop
            row = self.text[self.at : stop]
            self.at, self.line = min(stop + 1, len(self.text)), self.line + 1
            if row.strip() == end:
                break
            lines.append(row)
        return "\n".join(lines), first

    def _word(self, head: int = 0) -> str:
        out = [self.text[self.at : self.at + head]]
        self.at += head
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "\\" and self.escapes and self.at + 1 < len(self.text):
                follow = self.text[self.at + 1]
                if follow == "\n":
                    break
                out.append(follow)
                self.at += 2
            elif char == "'":
                out.append(self._until("'"))
            elif char == '"':
                out.append(self._double())
            elif char == "$" and self.text.startswith("$(", self.at):
                out.append(self._substitution())
            elif char == "$" and self.text.startswith("${", self.at):
                end = self.text.find("}", self.at)
                end = len(self.text) - 1 if end < 0 else end
                out.append(self._take(end + 1))
            elif char in " \t\r\n;|&()" or (char in "<>" and not _PLACEHOLDER.match(self.text, self.at)):
                break
            elif char == "<":
                found = _PLACEHOLDER.match(self.text, self.at)
                out.append(self._take(found.end() if found else self.at + 1))
            else:
                out.append(char)
                self.at += 1
        return "".join(out)

    def _take(self, end: int) -> str:
        piece = self.text[self.at : end]
        self.line += piece.count("\n")
        self.at = end
        return piece

    def _until(self, mark: str) -> str:
        end = self.text.find(mark, self.at + 1)
        end = len(self.text) if end < 0 else end
        return self._take(min(end + 1, len(self.text)))[1:].removesuffix(mark)

    def _double(self) -> str:
        self.at += 1
        out = []
        while self.at < len(self.text) and self.text[self.at] != '"':
            char = self.text[self.at]
            if char == "\\" and self.escapes and self.at + 1 < len(self.text):
                if self.text[self.at + 1] == "\n":
                    self.line += 1
                else:
                    out.append(self.text[self.at + 1])
                self.at += 2
            elif self.text.startswith("$(", self.at):
                out.append(self._substitution())
            else:
                out.append(self._take(self.at + 1))
        self.at += 1
        return "".join(out)

    def _substitution(self) -> str:
        depth, end = 0, self.at + 1
        while end < len(self.text):
            depth += {"(": 1, ")": -1}.get(self.text[end], 0)
            end += 1
            if depth == 0:
                break
        inner = self.text[self.at + 2 : end - 1]
        if not inner.startswith("("):
            self.nested.append((inner, self.line))
        self._take(end)
        return "$(…)"
