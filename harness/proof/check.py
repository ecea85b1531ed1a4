#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What reviewers run, on every commit of the series. Ends in one summary line.

Messages of sparse, coccicheck, kernel-doc and other compilers count only where
the base does not have them too. What passed is remembered in build/check, keyed by content.
"""
import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from guests import alone  # noqa: E402

TOP = Path(__file__).resolve().parents[2]
HARNESS = TOP / "harness"
CPUS = len(os.sched_getaffinity(0))
ARCH = {"uml": "um", "x86": "x86_64"}
# Headers reach these, and no UML configuration compiles them.
X86_DIRS = ("drivers/infiniband/sw/rdmavt/", "drivers/infiniband/hw/")
# nor this, which has its option in x86
X86_OBJECTS = ("drivers/infiniband/core/twin.o",)
# No guest's configuration has them, and an object alone does not find its headers: cross
# compiles them.
CROSS_ONLY = ("drivers/infiniband/hw/hns/",)
NOT_KERNEL = ("Documentation/", "samples/", "scripts/", "tools/")
SUBMITTER = ("Submitter", "submitter@example.org")
IGNORED_TYPES = {
    "FILE_PATH_CHANGES": "get_maintainer.pl is asked about each new file instead",
    "UNKNOWN_COMMIT_ID": "the base is one commit, without Linux's history",
    "MISSING_FIXES_TAG": "not every commit can be told, and a wrong one is worse than none",
}
# words that codespell takes for misspelled ones
KNOWN_WORDS = {
    "iif": "a keyword of ip rule",
    "nin": "a variable: how many came in",
}
# configuration: ARCH, compiler, and what it has besides ALLMOD
CROSS = {
    "arm64-64k": ("arm64", "aarch64-linux-gnu-gcc", ["ARM64_64K_PAGES=y"]),
    "s390": ("s390", "s390x-linux-gnu-gcc", ["CPU_BIG_ENDIAN=y"]),
    "arm-lpae": ("arm", "arm-linux-gnueabihf-gcc",
                 ["ARCH_MULTI_V6=n", "CPU_BIG_ENDIAN=n", "HIGHMEM=y", "ARM_LPAE=y"]),
    # With IBT objtool would wait for the whole module.
    "x86-clang": ("x86_64", "clang-19", ["X86_KERNEL_IBT=n"]),
}
# What differs from allmodconfig everywhere, and why. KASAN, UBSAN, KCOV and GCOV stay on.
ALLMOD = [
    "COMPILE_TEST=y",
    "WERROR=n",            # warnings are compared with those of base
    "DEBUG_INFO_NONE=y",   # a third of the time; and BTF wants pahole
    "GCC_PLUGINS=n",       # want the headers of each compiler, one more package
    "MODVERSIONS=n",       # time: each file with an export is read twice
    "RUST=n",              # where there is a rustc, prepare would compile its core library
]
# What Kconfig ties to x86-64: the other configurations of CROSS are not asked for it.
X86_ONLY = ("drivers/infiniband/hw/hfi1/", "drivers/infiniband/sw/rdmavt/")
OURS = {
    "LC_ALL": "C", "CCACHE_NOHASHDIR": "1", "KBUILD_BUILD_TIMESTAMP": "1970-01-01",
    "KBUILD_BUILD_USER": "harness", "KBUILD_BUILD_HOST": "harness",
    "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1",
}
# Kbuild, compilers and git take orders from dozens of variables (LLVM, KCFLAGS, CPATH,
# GIT_DIR, ...).
ENV = {name: value for name, value in os.environ.items() if name.startswith("CCACHE_")
       or name in ("PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")} | OURS
# for those of the harness that it starts
AT_WORK = ENV | {alone.MARK: str(TOP)}
TTY = sys.stdout.isatty()


def configuration():
    """What the kernels are made from; that of i386, and those of make bench, are not built."""
    return [f.read_text() for f in sorted((HARNESS / "guests/configs").iterdir())
            if f.stem not in ("guest-i386", "highmem", "plain")]


class Problem(Exception):
    """Stops a step, or outside of one the run, with one line."""


class Skip(Exception):
    """The step has nothing to look at."""


class Progress:
    """A live line on a terminal; without one, a plain line for each thing begun."""

    def __init__(self, step):
        self.step, self.start, self.text = step, time.monotonic(), ""

    def begin(self, text):
        self.text = text
        if not TTY:
            print(f"  {self.step}: {text} ({self.elapsed():.0f} s)", flush=True)
        self.live("")

    def live(self, line):
        if TTY:
            width = shutil.get_terminal_size().columns - 1
            text = f"{self.step:<11} {self.elapsed():5.0f} s  {self.text}  {line}"
            print(f"\r\033[K{text[:width]}", end="", flush=True)

    def elapsed(self):
        return time.monotonic() - self.start

    def end(self, result, detail, problems):
        print("\r\033[K" if TTY else "", end="")
        print(f"{self.step:<11} {result:<7} {self.elapsed():6.1f} s  {detail}".rstrip())
        for problem in problems:
            print(f"    {problem}")
        sys.stdout.flush()


def run(cmd, cwd, progress=None, env=None, text=None):
    """Exit status and output, standard error included."""
    try:
        with subprocess.Popen(
                cmd, cwd=cwd, env=env or ENV, text=True, errors="replace",
                stdin=subprocess.PIPE if text is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as proc:
            if text is not None:
                return (proc.communicate(text)[0], proc.returncode)[::-1]
            lines = []
            for line in proc.stdout:
                lines.append(line)
                if progress:
                    progress.live(line.strip())
            return proc.wait(), "".join(lines)
    except FileNotFoundError as e:
        raise Problem(f"{e.filename} is not installed: run harness/tree/setup check") from None


def must(cmd, cwd, progress=None, env=None):
    status, out = run(cmd, cwd, progress, env)
    if status:
        raise Problem(f"{shlex.join(map(str, cmd[:4]))}: {first_error(out)}")
    return out


def first_error(out):
    """The line of a build's output that says what is wrong."""
    lines = [line.strip() for line in out.splitlines() if line.strip()]
    for pattern in (r"\bEXN: |\berror: |\bundefined[!:]| undefined reference",
                    r"^(ERROR|harness|fatal): ?|\*\*\* (?!\[|Waiting)", r"\*\*\*|Error \d"):
        for line in lines:
            if re.search(pattern, line):
                return line
    return lines[-1] if lines else "failed without a word"


MESSAGE = re.compile(r"^(?:\w+: )?(?:\.\./)*([\w./+-]+):\d+(?::[\d-]+)?:?\s+(.*)")


def messages(out, files=None):
    """Messages about these files, without line numbers: {(file, message): [lines]}."""
    found = {}
    for line in out.splitlines():
        match = MESSAGE.match(line)
        if match and (files is None or match[1] in files):
            key = match[1], re.sub(r"\bline \d+", "line", match[2])
            found.setdefault(key, []).append(line)
    return found


def new_messages(before, after):
    """One line for each message that became more frequent."""
    new = []
    for key, lines in after.items():
        old = len(before.get(key, ()))
        if len(lines) > old:
            new.append(lines[-1] + (f" ({old} before, {len(lines)} now)" if old else ""))
    return new


def uncompiled(out):
    """Objects that make has no rule for, which a configuration leaves out."""
    return set(re.findall(r"No rule to make target '([^']+\.o)'", out))


def series_words(text):
    return [word for line in text.splitlines() for word in line.split("#")[0].split()]


def new_files(text):
    """What a patch file says it brings."""
    return re.findall(r"^New file: (.*)$", text.partition("\n---\n")[2], re.M)


def is_shell(path):
    if path.suffix == ".sh":
        return True
    with open(path, "rb") as f:
        return re.match(rb"#!.*\b(ba|da)?sh\b", f.readline(200)) is not None


def save(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(path.name + ".tmp")
    tmp.write_text(text)
    tmp.rename(path)


def digest(*parts):
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]


class Series:
    """The commits base..HEAD of a kernel tree, and its two worktrees."""

    def __init__(self, tree):
        self.tree = tree
        self.state = tree.parent / "check"
        self.configured = set()
        if not (tree / ".git").exists():
            raise Problem(f"{tree} is not there: run make tree")
        status, out = run(["git", "rev-parse", "--verify", "-q", "base^{commit}"], tree)
        if status:
            raise Problem(f"{tree} has no tag base: run make tree")
        self.base = out.strip()
        self.commits = self.git("rev-list", "--reverse", "base..HEAD").split()
        if self.git("status", "--porcelain", "--untracked-files=no"):
            raise Problem(f"{tree} has uncommitted changes: commit or stash them")
        self.added = self.changed("base", "HEAD", "A")
        self.touched = self.changed("base", "HEAD", "AM")

    def git(self, *args, cwd=None):
        return must(["git", "-c", "safe.directory=*", *args], cwd or self.tree)

    def changed(self, old, new, kinds="AMDT"):
        return self.git("-c", "core.quotePath=off", "diff", "--name-only", "--no-renames",
                        f"--diff-filter={kinds}", old, new).splitlines()

    def sources(self, commit):
        """Names and blobs of all that a compiler may see."""
        return [line for line in self.git("ls-tree", "-r", commit).splitlines()
                if not line.partition("\t")[2].startswith(("Documentation/", "tools/testing/"))]

    def subject(self, commit):
        return self.git("log", "-1", "--format=%s", commit).strip()

    def worktree(self, name, commit, progress):
        """build/NAME at this commit; only files that differ are written."""
        path = self.tree.parent / name
        if not (path / ".git").exists():
            progress.begin(f"making {path.name}")
            if path.exists():
                raise Problem(f"{path} is in the way: it is not a git worktree")
            self.git("worktree", "prune")
            self.git("worktree", "add", "-q", "--detach", "--no-checkout", str(path), commit)
        old = self.git("rev-parse", "HEAD", cwd=path).strip()
        # kbuild takes the object of a source that has gone for up to date, and
        # an option that is new to the tree may be one that the fragments set.
        stale = self.objects(self.changed(old, commit, "D"))
        if any("Kconfig" in f for f in self.changed(old, commit)):
            stale.append(".config")
            self.configured = {done for done in self.configured if done[0] != path}
        for build in path.glob("build-*"):
            for name in stale:
                (build / name).unlink(missing_ok=True)
        self.git("checkout", "-q", "--force", "--detach", commit, cwd=path)
        return path

    def configure(self, tree, kind, progress):
        if (tree, kind) not in self.configured:
            must([HARNESS / "guests/kernel.py", "config", kind, "--tree", tree], TOP, progress,
                 AT_WORK)
            self.configured.add((tree, kind))

    def make(self, tree, kind, progress, *args):
        return run(["make", f"-j{CPUS}", f"ARCH={ARCH[kind]}", f"O=build-{kind}",
                    "CC=ccache gcc", *args], tree, progress)

    def objects(self, files):
        return [f[:-1] + "o" for f in files
                if f.endswith(".c") and not f.startswith(NOT_KERNEL)]


def scripts(series, progress):
    """shellcheck and Python's compiler on the repository, and patches/series."""
    problems = []
    names = must(["git", "ls-files", "-co", "--exclude-standard"], TOP).splitlines()
    files = [TOP / name for name in names if (TOP / name).is_file()]
    shell = [f for f in files if is_shell(f)]
    if shell:
        problems += [line for line in run(["shellcheck", "-x", "-P", "SCRIPTDIR", "-f", "gcc", *shell], TOP)[1].splitlines()
                     if line.strip()]
    python = [f for f in files if f.suffix == ".py"]
    for f in python:
        try:
            compile(f.read_bytes(), str(f), "exec")
        except SyntaxError as e:
            problems.append(f"{f.relative_to(TOP)}:{e.lineno}: {e.msg}")
    listed = TOP / "patches/series"
    parts = series_words(listed.read_text()) if listed.exists() else []
    problems += [f"patches/series: there is no patches/{part}/cover" for part in parts
                 if not (TOP / "patches" / part / "cover").is_file()]
    patches = sorted((TOP / "patches").rglob("*.patch"))
    for patch in patches:
        name = patch.relative_to(TOP)
        if patch.parent.parent != listed.parent or patch.parent.name not in parts:
            problems.append(f"{name} is in no part that patches/series names")
        problems += [f"{name}: {new} does not exist" for new in new_files(patch.read_text())
                     if not (TOP / new).is_file()]
    return problems, f"{len(shell)} shell, {len(python)} Python, {len(patches)} patches in {len(parts)} parts"


def codespell():
    """checkpatch finds the dictionary only where its own python3 is codespell's."""
    script = shutil.which("codespell")
    if not script:
        return []
    with open(script, errors="replace") as f:
        python = f.readline().removeprefix("#!").split()
    code = "import codespell_lib as c; print(c.__path__[0] + '/data/dictionary.txt')"
    status, out = run([*python, "-c", code], TOP)
    return ["--codespell", f"--codespellfile={out.strip()}"] if status == 0 else []


def checkpatch(series, progress):
    if not series.commits:
        raise Skip("no commit")
    spell = codespell()
    name, mail = SUBMITTER
    signer = ENV | {"GIT_COMMITTER_NAME": name, "GIT_COMMITTER_EMAIL": mail}
    # Outside of a repository checkpatch judges the form of "commit <id>" and
    # Fixes:, which it leaves alone where it does not find the commit.
    outside = ENV | {"GIT_DIR": "/nonexistent"}
    problems = []
    for commit in series.commits:
        subject = series.subject(commit)
        if TTY:
            progress.begin(subject)
        status, patch = run(["git", "format-patch", "-1", "--stdout", "--signoff", "--no-renames",
                             "--no-signature", commit], series.tree, env=signer)
        patch = re.sub(r"^From: .*(\n .*)*", f"From: {name} <{mail}>", patch, count=1, flags=re.M)
        status, out = run(["perl", "scripts/checkpatch.pl", "--strict", "--terse",
                           "--show-types", "--color=never", *spell,
                           "--ignore", ",".join(IGNORED_TYPES), "-"],
                          series.tree, env=outside, text=patch)
        found = re.findall(r"^-:(?:\d+:)? *((?:ERROR|WARNING|CHECK):.*)", out, re.M)
        if status and not found:
            found = [first_error(out)]
        found = [line for line in found
                 if not any(f"TYPO_SPELLING: '{word}' " in line for word in KNOWN_WORDS)]
        problems += [f"{subject}: {line}" for line in found]
    for path in series.added:
        sections = run(["perl", "scripts/get_maintainer.pl", "--no-git", "--no-git-fallback", "--no-m",
                        "--no-r", "--no-l", "--no-n", "--sections", "-f", path], series.tree)[1]
        titles = [t for t in re.findall(r"^([^\s:]{2}.*)\n[A-Z]:\t", sections, re.M) if t != "THE REST"]
        if not titles:
            problems.append(f"{path}: no section of MAINTAINERS has it")
    return problems, f"{len(series.commits)} commits{'' if spell else ', without codespell'}"


def kernel_doc(series, progress):
    base = series.worktree("stock", series.base, progress)

    def look(tree):
        files = [f for f in series.touched if f.endswith((".c", ".h"))
                 and (tree / f).is_file() and "/**" in (tree / f).read_text(errors="replace")]
        if not files:
            return 0, {}
        status, out = run(["scripts/kernel-doc", "-none", "-Wall", "-Werror", *files], tree)
        found = messages(out, files)
        if status and not found:
            raise Problem(first_error(out))
        # It says each thing twice where two of a file's sections touch.
        return len(files), {key: sorted(set(lines)) for key, lines in found.items()}

    count, after = look(series.tree)
    if not count:
        raise Skip("no file with kernel-doc touched")
    return new_messages(look(base)[1], after), f"{count} files"


def htmldocs(series, progress):
    pages = [f for f in series.touched if re.match(r"Documentation/.*\.rst$", f)]
    if not pages:
        raise Skip("no page touched")
    output = series.tree / "build-docs/Documentation/output"
    # Sphinx is silent about pages that it has not to make again.
    shutil.rmtree(output, ignore_errors=True)
    dirs = sorted({os.path.dirname(page).removeprefix("Documentation/") for page in pages})
    problems = []
    for where in dirs:
        progress.begin(where)
        status, out = run(["make", "O=build-docs", "htmldocs", f"SPHINXDIRS={where}"],
                          series.tree, progress)
        if status:
            problems.append(f"{where}: {first_error(out)}")
        ours = [f for f in series.added + pages if not f.endswith(("/Makefile", "/Kconfig"))]
        problems += dict.fromkeys(line.replace(f"{series.tree}/", "") for line in out.splitlines()
                                  if any(f in line for f in ours))
    for page in pages:
        html = output / page.removeprefix("Documentation/").replace(".rst", ".html")
        if not html.is_file():
            problems.append(f"{page}: no {html.name} came out of it")
    return problems, f"{len(pages)} pages"


def sparse(series, progress):
    checker = must([HARNESS / "proof/sparse"], TOP).strip().splitlines()[-1]
    wanted = [o for o in series.objects(series.touched) if not o.startswith(CROSS_ONLY)]
    if not wanted:
        raise Skip("no C file touched")
    checker += " -fmax-warnings=unlimited"
    version = must(["sha256sum", checker.split()[0]], TOP)
    config = digest(*configuration())

    def look(tree, commit):
        objects = [o for o in wanted if (tree / (o[:-1] + "c")).is_file()]
        cache = series.state / "sparse" / digest(
            series.git("rev-parse", commit + "^{tree}"), version, config, *objects)
        if cache.exists():
            return json.loads(cache.read_text())
        text, left = "", set(objects)
        for kind in ARCH:
            todo = sorted(o for o in left if kind == "x86" or not o.startswith(X86_DIRS + X86_OBJECTS))
            if not todo:
                continue
            progress.begin(f"{tree.name}, {kind}: {len(todo)} files")
            series.configure(tree, kind, progress)
            status, out = series.make(tree, kind, progress, "-k", "C=2", f"CHECK={checker}", *todo)
            missing = uncompiled(out) & set(todo)
            if status and (not missing or re.search(r"\*\*\* \[[^\]]*\.o\] Error", out)):
                raise Problem(f"{tree.name}: {first_error(out)}")
            text, left = text + out, left - set(todo) | missing
        result = [text, sorted(left)]
        save(cache, json.dumps(result))
        return result

    files = set(series.touched)
    after, left = look(series.tree, "HEAD")
    before, _ = look(series.worktree("stock", series.base, progress), series.base)
    problems = [f"{o[:-1]}c: compiled by neither configuration" for o in left]
    return problems + new_messages(messages(before, files), messages(after, files)), f"{len(wanted)} files"


class Cross:
    """One configuration of CROSS, in one tree."""

    def __init__(self, name, tree, progress):
        self.arch, self.compiler, options = CROSS[name]
        self.options = [f"CONFIG_{option}" for option in ALLMOD + options]
        self.name, self.tree, self.progress = name, tree, progress
        self.out = tree / f"build-{name}"
        prefix, _, version = self.compiler.partition("clang")
        self.args = [f"ARCH={self.arch}", f"O={self.out.name}", "W=1", "HOSTCC=ccache gcc",
                     f"LLVM={version}", f"CROSS_COMPILE={prefix.removesuffix('gcc')}",
                     f"CC=ccache {self.compiler}"]

    def make(self, *args):
        return run(["make", f"-j{CPUS}", *self.args, *args], self.tree, self.progress)

    def prepare(self):
        """Configure, and make what is made before the first object."""
        self.progress.begin(f"{self.tree.name}, {self.name}: headers")
        save(self.out / "harness.config", "".join(f"{option}\n" for option in self.options))
        for args in ["KCONFIG_ALLCONFIG=harness.config", "allmodconfig"], ["prepare"]:
            status, out = self.make(*args)
            if status:
                raise Problem(f"{self.tree.name}: {first_error(out)}")
        config = (self.out / ".config").read_text().splitlines()
        for option in self.options:
            on = re.fullmatch(r"(\w+)=n", option)
            if any(line.startswith(f"{on[1]}=") for line in config) if on else option not in config:
                raise Problem(f"{self.tree.name}: Kconfig does not take {option}")

    def compile(self, objects):
        """The output, what has no rule to make it, and what does not compile."""
        self.prepare()
        self.progress.begin(f"{self.tree.name}, {self.name}: {len(objects)} files")
        for o in objects:
            # Make is silent about objects that it has not to make again.
            (self.out / o).unlink(missing_ok=True)
        out = self.make("-k", *objects)[1]
        missing = {o for o in objects if not (self.out / o).exists()}
        left = missing & uncompiled(out)
        return out, sorted(left), sorted(missing - left)


def cross(series, progress):
    """Other architectures and another compiler, from allmodconfig, with W=1."""
    wanted = series.objects(series.touched)
    if not wanted:
        raise Skip("no C file touched")

    def look(name, tree, commit):
        config = Cross(name, tree, progress)
        objects = [o for o in wanted if (tree / (o[:-1] + "c")).is_file()
                   and (config.arch == "x86_64" or not o.startswith(X86_ONLY))]
        if not objects:
            return "", [], [], []
        cache = series.state / "cross" / digest(
            series.sources(commit), must([config.compiler, "--version"], TOP),
            *config.options, *config.args, *objects)
        if cache.exists():
            return json.loads(cache.read_text())
        out, left, broken = config.compile(objects)
        result = [out, left, broken, sorted(set(objects) - set(left) - set(broken))]
        if not broken:
            save(cache, json.dumps(result))
        return result

    problems, counts, compiled = {}, [], set()
    for name in CROSS:
        try:
            out, left, broken, done = look(name, series.tree, "HEAD")
            found, old, was_broken = warnings(out), {}, []
            if found or broken:
                stock = series.worktree("stock", series.base, progress)
                before, _, was_broken, _ = look(name, stock, series.base)
                old = warnings(before)
            new = [f"{o[:-1]}c: Kconfig leaves it out" for o in left]
            new += [f"{o[:-1]}c: does not compile" for o in broken if o not in was_broken]
            new += new_messages(old, found)
            same = len(set(broken) & set(was_broken))
            compiled.update(done)
            counts.append(f"{name} {len(done)}" + (f" ({same} broken, as in base)" if same else ""))
        except Problem as e:
            new = [str(e)]
        for problem in new:
            problems.setdefault(problem, []).append(name)
    problems = [f"{problem} ({', '.join(names)})" for problem, names in problems.items()]
    if not problems:
        problems = [f"{o[:-1]}c: no configuration compiles it" for o in wanted if o not in compiled]
    return problems, f"{len(wanted)} files: {', '.join(counts)}"


def warnings(out):
    """Those of compilers, of kernel-doc and of objtool, in any file; each place counts once."""
    # what counts the assertions of a file up says nothing
    out = re.sub(r"__compiletime_assert_\d+", "__compiletime_assert", out)
    out = re.sub(r"^([\w./+-]+\.o): (\w+: objtool: [\w.]+)(\+0x\w+)?", r"\1:1: \2", out, flags=re.M)
    return {(file, message): sorted(set(lines)) for (file, message), lines in messages(out).items()
            if not message.startswith("note: ")}


def coccicheck(series, progress):
    files = [f for f in series.touched if f.endswith((".c", ".h")) and not f.startswith(NOT_KERNEL)]
    if not files:
        raise Skip("no C file touched")
    base = series.worktree("stock", series.base, progress)
    patches = [p for p in sorted((series.tree / "scripts/coccinelle").rglob("*.cocci"))
               if re.search(r"virtual\s+report", p.read_text())]
    version = must(["spatch", "--version"], TOP).splitlines()[0]
    blobs = {(tree, f): series.git("rev-parse", f"{commit}:{f}").strip()
             for tree, commit in ((series.tree, "HEAD"), (base, series.base))
             for f in files if (tree / f).is_file()}
    done, broken = [0], []

    def look(patch):
        """Reports of one semantic patch: {path blob: output lines}."""
        name = str(patch.relative_to(series.tree / "scripts/coccinelle"))
        cache = series.state / "coccicheck" / (name.replace("/", "-") + ".json")
        key = digest(version, patch.read_text())
        old = json.loads(cache.read_text()) if cache.exists() else {}
        known = old.get(key, {})
        options = " ".join(re.findall(r"Options:(.*)", patch.read_text())).split()
        for tree in (series.tree, base):
            todo = [f for (t, f), blob in blobs.items() if t == tree and f"{f} {blob}" not in known]
            if not todo:
                continue
            groups = cache.with_suffix(".groups")
            save(groups, "\n\n".join(todo) + "\n")
            # Without --no-scanner it greps all of Linux for each rule.
            status, out = run(
                ["spatch", "-D", "report", "--no-show-diff", "--very-quiet", "--no-scanner",
                 "--timeout", "120", "--cocci-file", patch, *options, "--file-groups", groups,
                 *"-I arch/x86/include -I include -I arch/x86/include/uapi -I include/uapi".split(),
                 *"--include include/linux/compiler-version.h --include include/linux/kconfig.h".split()],
                tree)
            groups.unlink()
            # An exception leaves the exit status 0, and the file unseen.
            if status or "EXN: " in out:
                broken.append(f"{name}: {first_error(out)}")
                return None
            for f in todo:
                known[f"{f} {blobs[tree, f]}"] = [
                    line for lines in messages(out, {f}).values() for line in lines]
        found = {k: known[k] for k in {f"{f} {blob}" for (_, f), blob in blobs.items()}}
        if found != old.get(key):
            save(cache, json.dumps({key: found}))
        done[0] += 1
        progress.live(f"{done[0]} of {len(patches)} semantic patches")
        return found

    progress.begin(f"{len(patches)} semantic patches on {len(files)} files")
    with ThreadPoolExecutor(CPUS) as pool:
        reports = [found for found in pool.map(look, patches) if found]

    def text(tree):
        return "\n".join(line for found in reports for (t, f), blob in blobs.items() if t == tree
                         for line in found[f"{f} {blob}"])

    # Two of them are written in OCaml, whose compiler spatch then asks for.
    problems = [b for b in broken if "OCaml" not in b]
    new = new_messages(messages(text(base), set(files)), messages(text(series.tree), set(files)))
    note = f", {len(broken)} need OCaml" if broken else ""
    return problems + new, f"{len(files)} files, {len(patches)} semantic patches{note}"


def builds(series, progress):
    if not series.commits:
        raise Skip("no commit")
    config = digest(*configuration(), must(["gcc", "--version"], TOP))
    problems, built = [], 0
    for number, commit in enumerate(series.commits, 1):
        mark = series.state / "built" / digest(series.git("rev-parse", commit + "^{tree}"), config)
        if mark.exists():
            continue
        subject = series.subject(commit)
        progress.begin(f"{number}/{len(series.commits)} {subject}")
        tree = series.worktree("each", commit, progress)
        progress.text = f"{number}/{len(series.commits)} {subject}"
        error, log = build(series, tree, commit, progress)
        if error:
            where = series.state / f"builds-{number:04}.log"
            save(where, log)
            problems.append(f"{subject}: {error} ({os.path.relpath(where, TOP)})")
        else:
            save(mark, subject + "\n")
        built += 1
    return problems, f"{len(series.commits)} commits, {built} built now"


def build(series, tree, commit, progress):
    """What is wrong with this commit (or nothing), and the whole output."""
    files = series.changed(commit + "^", commit)
    series.configure(tree, "uml", progress)
    if "CONFIG_WERROR=y\n" not in (tree / "build-uml/.config").read_text():
        raise Problem("the configuration has no CONFIG_WERROR=y: a warning would pass")
    status, log = series.make(tree, "uml", progress, "all")
    if status:
        return first_error(log), log
    targets = [o for o in series.objects(files) if (tree / (o[:-1] + "c")).is_file()
               and not (tree / "build-uml" / o).exists() and not o.startswith(CROSS_ONLY)]
    if any(f.startswith(("include/", "drivers/infiniband/")) and f.endswith(".h") for f in files):
        targets += X86_DIRS
    if targets:
        series.configure(tree, "x86", progress)
        status, out = series.make(tree, "x86", progress, *targets)
        log += out
        if status:
            missing = sorted(uncompiled(out) & set(targets))
            return (f"{missing[0][:-1]}c is compiled by neither configuration" if missing
                    else first_error(out)), log
    if any(f.startswith(("drivers/", "include/", "net/")) for f in files):
        error, out = boot(series, tree, progress)
        return error, log + out
    return "", log


def boot(series, tree, progress):
    """What is wrong with the kernel in a guest (or nothing), and its output."""
    status, log = run([HARNESS / "guests/guest.py", "--tree", tree, "--timeout", "120", "uml",
                       HARNESS / "in-guest/boot.sh", series.tree], TOP, progress, AT_WORK)
    if not status:
        return "", ""
    last = [line for line in log.splitlines() if line.startswith("harness: ")][-1:]
    return f"in the guest: {last[0][9:] if last else 'status ' + str(status)}", log


STEPS = {"scripts": scripts, "checkpatch": checkpatch, "kernel-doc": kernel_doc,
         "htmldocs": htmldocs, "sparse": sparse, "cross": cross, "coccicheck": coccicheck,
         "builds": builds}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tree", type=Path, default=TOP / "build/linux",
                        help="kernel tree with a tag base (build/linux)")
    parser.add_argument("step", nargs="*", help=f"of {', '.join(STEPS)} (all)")
    args = parser.parse_args()
    for step in args.step:
        if step not in STEPS:
            raise Problem(f"no step {step}: {', '.join(STEPS)}")
    series = Series(args.tree.resolve())
    results = {"ok": 0, "FAILED": 0, "skipped": 0}
    for step in args.step or STEPS:
        progress = Progress(step)
        try:
            problems, detail = STEPS[step](series, progress)
        except Skip as e:
            result, problems, detail = "skipped", [], str(e)
        except (Problem, OSError, ValueError) as e:
            result, problems, detail = "FAILED", [str(e)], ""
        else:
            result = "FAILED" if problems else "ok"
        results[result] += 1
        progress.end(result, detail, problems)
    print(f"{results['ok']} passed, {results['FAILED']} failed, {results['skipped']} skipped")
    return 1 if results["FAILED"] else 0


if __name__ == "__main__":
    try:
        with alone.alone(TOP):
            sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nharness: interrupted")
    except (Problem, OSError) as e:
        sys.exit(f"harness: {e}")
