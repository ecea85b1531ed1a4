#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""patches/ and the new files <-> the commits of build/linux <-> the mails in out/.

patches/series names the parts in order, one a line; `#` starts a comment. A part
is what is sent to one tree, and a folder:

    patches/PART/cover            subject, blank line, text, and at the end the lines
                                  `Tree: the tree it is sent to` and, for each part
                                  that must be there first, `Needs: PART`
    patches/PART/NNNN-slug.patch  its commits, in the order of the names. What is new
                                  to Linux stands in the repository at its in-tree
                                  path: a line `New file: PATH` after the `---` says
                                  that it lands whole with the patch. So a patch file
                                  is all there is of a commit: renamed or moved to
                                  another part's folder it takes its new files along.

In build/linux a commit is of the part that its subject, or the one that stood in
its place, has in patches/; a new one is of the part of the commit before it. `Part:
NAME` at the end of its message says otherwise, and is not stored. A new part is a
line in patches/series and a cover; then commits say `Part:`, or patch files are
moved there.
"""
import argparse
import contextlib
import difflib
import email.header
import email.utils
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

HERE = pathlib.Path(__file__).resolve().parent
MAX = 15                        # patches of a part, which somebody has to read
EXPORTED = 'refs/harness/exported'
DATE = '1767225600 +0000'       # fixed, so that the same patches give the same hashes
OURS = {'harness', 'patches', 'build', 'out', '.git', '.ci'}


class Refuse(Exception):
    """What the user reads, in one line."""


@dataclass
class Patch:
    subject: str
    body: str = ''
    diff: bytes = b''
    new: dict = field(default_factory=dict)     # in-tree path: (executable, content)
    part: int = 0
    asked: str = ''     # the name of the part, if the commit says it
    file: str = ''      # in patches/


@dataclass
class Part:
    name: str
    text: str           # of the cover, without the lines below
    trees: list
    needs: list


@dataclass
class Series:
    parts: list
    patches: list

    def names(self):
        return [part.name for part in self.parts]

    def needs(self, part):
        """The numbers of the parts that this one needs, and that these need, in order."""
        result = set()
        for need in self.parts[part].needs:
            number = self.names().index(need)
            result |= {number, *self.needs(number)}
        return sorted(result)

    def of(self, *parts):
        return [p for p in self.patches if p.part in parts]


def environment():
    """The user's environment without what would change git's output."""
    env = {k: v for k, v in os.environ.items() if not k.startswith('GIT_')}
    return env | {'GIT_CONFIG_GLOBAL': '/dev/null', 'GIT_CONFIG_NOSYSTEM': '1', 'LC_ALL': 'C'}


def sha1(*chunks):
    digest = hashlib.sha1()
    for chunk in chunks:
        digest.update(b'%d:' % len(chunk) + chunk)
    return digest.hexdigest()


def slug(subject):
    text = re.sub(r'\.+', '.', re.sub(r'[^A-Za-z0-9._]+', '-', subject))
    return text.strip('-.')[:52].rstrip('-.') or 'patch'


def format_patch(patch):
    # A line `---` ends the body, so one in the body gets a space more.
    body = re.sub(r'^( *---)$', r' \1', patch.body, flags=re.M)
    text = f'Subject: {patch.subject}\n\n' + (body + '\n\n' if body else '') + '---\n'
    text += ''.join(f'New file: {path}\n' for path in sorted(patch.new))
    return text.encode() + patch.diff


def parse_patch(data, name):
    head, found, diff = data.partition(b'\n---\n')
    try:
        lines = head.decode().split('\n')
    except UnicodeDecodeError:
        raise Refuse(f'patches/{name}: the message is not UTF-8') from None
    if not (found and lines[0].startswith('Subject: ') and lines[0][9:].strip()
            and len(lines) > 1 and not lines[1]):
        raise Refuse(f'patches/{name}: not of the form "Subject: ...", blank line, body, "---", diff')
    body = re.sub(r'^ ( *---)$', r'\1', '\n'.join(lines[2:]), flags=re.M)
    patch = Patch(lines[0][9:].strip(), clean_body(body)[0], file=name)
    new, patch.diff = re.match(rb'((?:New file: [^\n]*\n)*)(.*)', diff, re.S).groups()
    patch.new = dict.fromkeys(os.fsdecode(line[10:].strip()) for line in new.splitlines())
    return patch


def clean_body(body):
    """Without the sign-off, which belongs to whoever sends the series; the part it asks for."""
    part = ''
    while True:
        start, gap, last = body.strip('\n').rpartition('\n\n')
        part = ''.join(re.findall(r'^Part: *(\S+)', last, re.M)[-1:]) or part
        last = re.sub(r'^(Signed-off-by|Part): .*\n?', '', last, flags=re.M).strip('\n')
        if last or not gap:
            return start + gap + last, part
        body = start


def parse_cover(name, text):
    part = Part(name, text.strip('\n'), [], [])
    while found := re.search(r'(?:\A|\n)(Tree|Needs):[ \t]*(.*?)[ \t]*\Z', part.text):
        (part.trees if found[1] == 'Tree' else part.needs).insert(0, found[2])
        part.text = part.text[:found.start()].rstrip('\n')
    return part


class Project:
    def __init__(self, top):
        self.top = top
        self.tree_dir = top / 'build/linux'
        self.patches = top / 'patches'
        self.gitdir = self.tree_dir / '.git'
        self.record_file = self.gitdir / 'harness.json'

    # git

    def git_run(self, *args, data=None, env=None, cwd=None):
        cmd = ['git', '--literal-pathspecs', '-c', 'safe.directory=*', '-c', 'core.hooksPath=/dev/null',
               '-c', 'core.quotePath=true', '-c', 'diff.suppressBlankEmpty=false', '-c', 'gc.auto=0']
        return subprocess.run([*cmd, *args], input=data, cwd=cwd or self.tree_dir, check=False,
                              capture_output=True, env=environment() | (env or {}))

    def git(self, *args, **kw):
        p = self.git_run(*args, **kw)
        if p.returncode:
            lines = p.stderr.decode(errors='replace').strip().split('\n')
            raise Refuse(f'git {args[0]}: {" ".join(line.strip() for line in lines[:3])}')
        return p.stdout

    def rev(self, name):
        p = self.git_run('rev-parse', '-q', '--verify', name + '^{commit}')
        return p.stdout.decode().strip() if p.returncode == 0 else None

    def subject_of(self, commit):
        return self.git('log', '-1', '--format=%h ("%s")', commit).decode(errors='replace').strip()

    # What is stored

    def read_series(self):
        """patches/series with everything it names."""
        series, new = Series([], []), set()
        path = self.patches / 'series'
        for line in path.read_text('utf-8').split('\n') if path.exists() else []:
            name = line.split('#')[0].strip()
            if not name:
                continue
            if not re.fullmatch(r'[A-Za-z0-9][\w-]*', name, re.A):
                raise Refuse(f'patches/series: {name}: no name of a part, which is letters, digits, - and _')
            if name in series.names():
                raise Refuse(f'patches/series: {name} is listed twice')
            cover = self.patches / name / 'cover'
            if not cover.is_file():
                raise Refuse(f'patches/series: {name}: no file patches/{name}/cover')
            part = parse_cover(name, cover.read_text('utf-8'))
            for need in part.needs:
                if need not in series.names():
                    raise Refuse(f'patches/{name}/cover: it needs {need}, which is no part before it in patches/series')
            series.parts.append(part)
            for file in sorted(cover.parent.glob('*.patch')):
                patch = parse_patch(file.read_bytes(), f'{name}/{file.name}')
                patch.part = len(series.parts) - 1
                series.patches.append(patch)
                for word in patch.new:
                    self.check_new(word)
                    file = self.top / word
                    if not file.is_file() or file.is_symlink():
                        raise Refuse(f'patches/{patch.file}: {word}: no such file')
                    if word in new:
                        raise Refuse(f'patches/{patch.file}: {word} is new in another patch, too')
                    new.add(word)
                    patch.new[word] = (os.access(file, os.X_OK), file.read_bytes())
        for file in sorted(self.patches.glob('*.patch')) + sorted(self.patches.glob('*/*.patch')):
            if file.parent == self.patches or file.parent.name not in series.names():
                raise Refuse(f'{file.relative_to(self.top)} is in no part that patches/series names')
        return series

    def check_new(self, path):
        if '/' not in path or path.split('/')[0] in OURS:
            raise Refuse(f'{path}: the name of this new file belongs to this repository')
        if re.search(r'''[\s#"'\\]''', path) or not path.isprintable():
            raise Refuse(f'{path}: a new file with white space or a quote in its name')

    def stored(self, series):
        """All that refresh writes: path in the repository: (executable, content)."""
        files = {}
        for patch in series.patches:
            files['patches/' + patch.file] = (False, format_patch(patch))
            files |= patch.new
        return files

    def record(self):
        with contextlib.suppress(OSError, ValueError):
            return json.loads(self.record_file.read_text('utf-8'))
        return {'files': {}, 'commits': {}}

    def write_record(self, head, files, commits, stacks=None):
        text = json.dumps({'files': {k: sha1(v[1]) for k, v in files.items()}, 'commits': commits,
                           'stacks': stacks or self.record().get('stacks', {})})
        tmp = self.record_file.with_suffix('.tmp')
        tmp.write_text(text, 'utf-8')
        tmp.replace(self.record_file)
        if self.rev(EXPORTED) != head:
            self.git('update-ref', EXPORTED, head)

    # The state of build/linux

    def need_base(self):
        base = self.rev('refs/tags/base') if self.gitdir.exists() else None
        if not base:
            raise Refuse('build/linux has no tag "base": run make setup')
        return base

    def refuse_unfinished(self):
        for name, what in (('rebase-merge', 'a rebase'), ('rebase-apply', 'a rebase or git am'),
                           ('MERGE_HEAD', 'a merge'), ('CHERRY_PICK_HEAD', 'a cherry-pick'),
                           ('REVERT_HEAD', 'a revert')):
            if (self.gitdir / name).exists():
                raise Refuse(f'build/linux: {what} is in progress: finish it or abort it')

    def refuse_uncommitted(self, untracked):
        status = self.git('status', '--porcelain', '--untracked-files=' + ('normal' if untracked else 'no'))
        if status:
            line = status.decode(errors='replace').split('\n')[0]
            raise Refuse(f'build/linux has uncommitted changes ({line[3:]}): commit or undo them')

    # tree

    def commits(self, patches, base, known, where=''):
        """Make the commits of the patches on top of base; {key: commit} in order."""
        result, key = {}, base
        keys = []
        for patch in patches:
            parts = [key.encode(), patch.subject.encode(), patch.body.encode(), patch.diff]
            for path, (executable, data) in sorted(patch.new.items()):
                parts += [path.encode(), b'%d' % executable, data]
            key = sha1(*parts)
            keys.append(key)
        asked = ''.join(known.get(k, base) + '\n' for k in keys).encode()
        there = self.git('cat-file', '--batch-check=%(objecttype)', data=asked).decode().split('\n')
        parent = base
        todo = list(zip(patches, keys))
        for key, kind in zip(keys, there):
            if key not in known or kind != 'commit':
                break
            parent = result[key] = known[key]
            todo.pop(0)
        if not todo:
            return result
        index = self.gitdir / 'harness-index'
        index.unlink(missing_ok=True)
        (self.gitdir / 'harness-index.lock').unlink(missing_ok=True)
        env = {'GIT_INDEX_FILE': str(index)}
        try:
            self.git('read-tree', parent, env=env)
            for n, (patch, key) in enumerate(todo, len(result) + 1):
                progress(f'[{n}/{len(keys)}] {patch.subject}')
                parent = result[key] = self.commit(patch, parent, env, where)
        finally:
            index.unlink(missing_ok=True)
            progress('')
        return result

    def commit(self, patch, parent, env, on):
        if patch.diff.strip():
            p = self.git_run('apply', '--cached', '--whitespace=nowarn', '-', data=patch.diff, env=env)
            if p.returncode:
                text = p.stderr.decode(errors='replace')
                where = re.search(r'patch failed: (.*)', text) or re.search(r'error: (.*)', text)
                raise Refuse(f'patches/{patch.file} does not apply{on}: {where[1] if where else text.strip()}')
        if patch.new:
            there = self.git('ls-tree', '--name-only', '-z', parent, '--', *patch.new).decode().split('\0')[0]
            if there:
                raise Refuse(f'patches/{patch.file} does not apply{on}: {there} is listed as a new file, '
                             'but Linux has it: it must be a patch')
        info = b''
        for path, (executable, data) in patch.new.items():
            blob = self.git('hash-object', '-w', '--no-filters', '--stdin', data=data).strip()
            info += b'%s %s\t%s\0' % (b'100755' if executable else b'100644', blob, path.encode())
        if info:
            self.git('update-index', '--add', '-z', '--index-info', data=info, env=env)
        tree = self.git('write-tree', env=env).decode().strip()
        if tree == self.git('rev-parse', parent + '^{tree}').decode().strip():
            raise Refuse(f'patches/{patch.file} changes nothing')
        return self.commit_tree(tree, parent, patch.subject, patch.body, env | identity(DATE))

    def commit_tree(self, tree, parent, subject, body, env):
        message = subject + '\n' + ('\n' + body + '\n' if body else '')
        return self.git('commit-tree', tree, '-p', parent, '-F', '-',
                        data=message.encode(), env=env).decode().strip()

    def tree(self):
        base = self.need_base()
        series = self.read_series()
        commits = self.commits(series.patches, base, self.record()['commits'])
        target = list(commits.values())[-1] if commits else base
        head = self.rev('HEAD')
        if head != target:
            self.refuse_unfinished()
            exported = self.rev(EXPORTED) or base
            safe = {base, exported, target}
            branch = self.rev('refs/heads/series') or base
            if head not in safe or branch not in safe | set(self.record()['commits'].values()):
                raise Refuse('build/linux has commits that patches/ does not: make refresh, or drop them '
                             f'with git -C build/linux checkout -B series {exported[:12]}')
            self.refuse_uncommitted(untracked=False)
            self.git('checkout', '-q', '-B', 'series', target)
        self.write_record(target, self.stored(series), commits)
        if head != target:
            print(f'build/linux: {self.base_name(base)} and {len(commits)} patches')
        return series, commits

    def base_name(self, base):
        return self.git('log', '-1', '--format=%s', base).decode().strip()

    # refresh

    def refresh(self, force=False):
        base = self.need_base()
        self.refuse_unfinished()
        self.refuse_uncommitted(untracked=True)
        if self.git_run('merge-base', '--is-ancestor', base, 'HEAD').returncode:
            raise Refuse('build/linux: HEAD is not on top of the tag "base"')
        merge = self.git('rev-list', '--min-parents=2', 'base..HEAD').decode().split()
        if merge:
            raise Refuse(f'build/linux: commit {self.subject_of(merge[-1])} is a merge')
        old = self.read_series()
        new = Series(old.parts, [])
        in_base = set(self.git('ls-tree', '-r', '--name-only', '-z', base).split(b'\0'))
        added, subjects, parent = {}, set(), base
        for commit in self.git('rev-list', '--reverse', 'base..HEAD').decode().split():
            patch = self.read_commit(parent, commit, in_base, added)
            if patch.subject in subjects:
                raise Refuse(f'build/linux: two commits have the subject "{patch.subject}"')
            subjects.add(patch.subject)
            new.patches.append(patch)
            parent = commit
        self.give_parts(old, new)
        files = self.stored(new)
        changed = self.write(files, {'patches/' + p.file for p in old.patches} |
                             {path for p in old.patches for path in p.new}, force)
        self.write_record(parent, files, self.record()['commits'])
        print(f'patches/: {len(new.patches)} patches, {changed} files changed')

    def give_parts(self, old, new):
        """Which part each commit of build/linux is of, and its file's name."""
        known = {p.subject: p.part for p in old.patches}
        subjects = [[p.subject for p in series.patches] for series in (old, new)]
        for kind, i, end, j, stop in difflib.SequenceMatcher(None, *subjects, False).get_opcodes():
            if kind == 'replace':       # another subject in the same place
                for n in range(j, stop):
                    known.setdefault(subjects[1][n], old.patches[min(i + n - j, end - 1)].part)
        names, before, number = old.names(), 0, {}
        if new.patches and not names:
            raise Refuse('patches/series names no part: write the name of one there, and its cover')
        for patch in new.patches:
            if patch.asked and patch.asked not in names:
                raise Refuse(f'build/linux: "{patch.subject}" asks for the part {patch.asked}, '
                             'which patches/series does not name')
            patch.part = (names.index(patch.asked) if patch.asked else
                          known.get(patch.subject, before))
            if patch.part < before:
                raise Refuse(f'build/linux: "{patch.subject}" is of the part {names[patch.part]} but comes after one '
                             f'of {names[before]}: move it, or end its message with "Part: {names[before]}"')
            before = patch.part
            number[before] = number.get(before, 0) + 1
            patch.file = f'{names[before]}/{number[before]:04}-{slug(patch.subject)}.patch'

    def read_commit(self, parent, commit, in_base, added):
        """The patch of one commit; added: {new file: the commit that added it}."""
        def name():
            return f'build/linux: commit {self.subject_of(commit)}'
        raw = self.git('cat-file', 'commit', commit)
        try:
            subject, _, body = raw.partition(b'\n\n')[2].decode().lstrip('\n').partition('\n\n')
        except UnicodeDecodeError:
            raise Refuse(f'{name()}: the message is not UTF-8') from None
        subject = ' '.join(line.strip() for line in subject.split('\n')).strip()
        if not subject:
            raise Refuse(f'{name()} has no subject')
        if re.match(r'(fixup|squash|amend)!', subject):
            raise Refuse(f'{name()} wants a git rebase --autosquash first')
        patch = Patch(subject)
        patch.body, patch.asked = clean_body(body)
        entries = self.git('diff-tree', '-r', '--raw', '-z', '--no-renames', '--abbrev=40',
                           parent, commit).split(b'\0')
        stat = self.git('diff-tree', '-r', '--numstat', '-z', '--no-renames', parent, commit)
        for line in stat.split(b'\0'):
            if line.startswith(b'-\t'):
                raise Refuse(f'{name()}: {os.fsdecode(line[4:])} is binary')
        existing = []
        for info, path in zip(entries[::2], entries[1::2]):
            _, mode, _, blob, _ = info.decode().split()
            text = os.fsdecode(path)
            if path in in_base:
                existing.append(text)
                continue
            if text in added:
                raise Refuse(f'{name()} touches {text}, new in {self.subject_of(added[text])}')
            added[text] = commit
            self.check_new(text)
            if mode not in ('100644', '100755'):
                raise Refuse(f'{name()}: {text} is not a regular file')
            patch.new[text] = (mode == '100755', self.git('cat-file', 'blob', blob))
        if not existing and not patch.new:
            raise Refuse(f'{name()} changes nothing')
        if existing:
            diff = self.git('diff-tree', '-r', '-p', '-U3', '--inter-hunk-context=0', '--no-renames',
                            '--src-prefix=a/', '--dst-prefix=b/', '--diff-algorithm=myers',
                            '--indent-heuristic', '--no-ext-diff', '--no-textconv', '--no-color',
                            '--no-relative', parent, commit, '--', *existing)
            # Within a hunk every line has a prefix.
            patch.diff = b''.join(line + b'\n' for line in diff.split(b'\n')[:-1]
                                  if not line.startswith(b'index '))
        return patch

    def write(self, files, before, force):
        """Bring the repository's files to `files`, in renames after all is on disk."""
        was, todo = self.record()['files'], {}
        gone = sorted(before - set(files))
        for path, (executable, data) in files.items():
            file = self.top / path
            there = file.read_bytes() if file.exists() else None
            if there != data or os.access(file, os.X_OK) != executable:
                todo[path] = (executable, data)
        for path in [] if force else [*todo, *gone]:
            file = self.top / path
            if path in was and file.exists() and sha1(file.read_bytes()) != was[path]:
                raise Refuse(f'{path} was changed here since the last make tree and make refresh would '
                             'overwrite it: undo that, or harness/tree/series.py refresh --force')
        for stale in self.top.glob('.refresh-*'):
            shutil.rmtree(stale)
        stage = pathlib.Path(tempfile.mkdtemp(prefix='.refresh-', dir=self.top))
        try:
            for n, (executable, data) in enumerate(todo.values()):
                (stage / str(n)).write_bytes(data)
                (stage / str(n)).chmod(0o755 if executable else 0o644)
            for path in gone:
                file = self.top / path
                file.unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    for parent in file.parents:
                        parent.rmdir()
            for n, path in enumerate(todo):
                (self.top / path).parent.mkdir(parents=True, exist_ok=True)
                (stage / str(n)).replace(self.top / path)
        finally:
            shutil.rmtree(stage)
        return len(todo) + len(gone)

    # series

    def series(self, version):
        if not version.isascii() or not version.isdigit() or version == '0':
            raise Refuse(f'V={version}: the version is a number from 1 up')
        env = {k: v for k, v in os.environ.items() if re.match('GIT_(AUTHOR|COMMITTER|CONFIG)|(?!GIT_)', k)}
        p = subprocess.run(['git', '-c', 'user.useConfigOnly=true', 'var', 'GIT_AUTHOR_IDENT'],
                           cwd=self.top, env=env, capture_output=True, encoding='utf-8', check=False)
        who = re.match(r'(.*) <(.*)> \d+ \S+$', p.stdout.strip())
        if not who:
            raise Refuse('git has no identity to sign off with: '
                         'set git config user.name and git config user.email')
        base, series = self.need_base(), self.read_series()
        if not series.patches:
            raise Refuse('patches/series has no patch in a part: nothing to send')
        for n, part in enumerate(series.parts):
            if len(series.of(n)) > MAX:
                raise Refuse(f'patches/{part.name} has {len(series.of(n))} patches, and a part has '
                             f'{MAX} or fewer: split it')
            if not re.match(r'.*\S.*\n\n\s*\S', part.text) or len(part.trees) != 1 or not part.trees[0]:
                raise Refuse(f'patches/{part.name}/cover: not of the form subject, blank line, text, '
                             'blank line, one "Tree: ...", "Needs: ..." for each part it needs')
        for patch in series.patches:
            cut = re.search(r'^(---|---[ \t].*|diff -.*|Index: .*|From .*\d:\d\d.*)$', patch.body, re.M)
            if cut:
                raise Refuse(f'patches/{patch.file}: git am would end the message at "{cut[0]}": indent it')
        series, commits = self.tree()
        known = self.record().get('stacks', {}) | commits
        now, stacks = int(time.time()) - len(series.patches), {}
        stage = pathlib.Path(tempfile.mkdtemp(prefix='.series-', dir=self.top))
        try:
            sent = []
            for n, part in enumerate(series.parts):
                below, own = series.of(*series.needs(n)), series.of(n)
                if not own:
                    continue
                names = [self.base_name(base), *(series.parts[need].name for need in series.needs(n))]
                made = self.commits(below + own, base, known | stacks,
                                    f' on what the part {part.name} needs ({", ".join(names)})')
                stacks |= made
                made = [base, *made.values()]
                start = end = made[len(below)]
                for patch, commit in zip(own, made[len(below) + 1:]):
                    now += 1
                    env = identity(f'{now} +0000', *who.groups())
                    end = self.commit_tree(commit + '^{tree}', end, patch.subject, patch.body, env)
                (stage / part.name).mkdir()
                self.mails(stage / part.name, f'{start}..{end}', base, version, part, self.cover(series, part), env)
                sent.append(part.name)
            for name in sent:
                out = self.top / 'out' / name
                out.parent.mkdir(exist_ok=True)
                shutil.rmtree(out, ignore_errors=True)
                (stage / name).replace(out)
                count = len(list(out.iterdir())) - 1
                print(f'out/{name}: {count} patch{"es" * (count > 1)} and a cover letter')
        finally:
            shutil.rmtree(stage)
        self.write_record(self.rev('HEAD'), self.stored(series), commits, stacks)

    def cover(self, series, part):
        """The subject, and the text with the needed parts by the names they have as mails."""
        subjects = {p.name: p.text.partition('\n')[0].strip() for p in series.parts}
        subject, _, text = part.text.partition('\n')
        notes = [f'Tree: {part.trees[0]}', *(f'Needs: "{subjects[need]}" ({need})' for need in part.needs)]
        return subject.strip(), text.strip('\n') + '\n\n' + '\n'.join(notes)

    def base_note(self, base):
        """The base's line in a mail: a hash that others have, or the release."""
        commit = self.git_run('config', 'harness.commit').stdout.decode().strip()
        if commit:
            return f'base-commit: {commit}'
        name = self.base_name(base)
        release = re.fullmatch(r'Linux (\d+\.\d+(\.\d+|-rc\d+)?)', name)
        return f'base: {name}' + (f' (v{release[1]} of the stable tree)' if release else '')

    def mails(self, out, commits, base, version, part, cover, env):
        tree = part.trees[0].split()[0]
        prefix = f'PATCH {tree}' if tree in ('net', 'net-next') else 'PATCH'     # netdev wants it there
        self.git('format-patch', '-q', '-o', str(out), '--numbered', '--cover-letter', '--thread=shallow',
                 '--signoff', f'--base={base}', f'--subject-prefix={prefix}',
                 *([f'-v{version}'] if version != '1' else []), commits, env=env)
        first, *rest = sorted(out.iterdir())
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            recipients = list(pool.map(self.recipients, rest))
        for file, (to, cc) in zip(rest, recipients):
            address(file, to, cc)
        subject, text = cover
        data = first.read_text('utf-8')
        data = data.replace(f'base-commit: {base}', self.base_note(base), 1)
        data = data.replace('*** SUBJECT HERE ***', encode(subject), 1)
        data = data.replace('*** BLURB HERE ***', text, 1)
        if not data.isascii() and '\nMIME-Version:' not in data:
            data = data.replace('\n\n', '\nMIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\n'
                                'Content-Transfer-Encoding: 8bit\n\n', 1)
        first.write_text(data, 'utf-8')
        to = list(dict.fromkeys(a for r in recipients for a in r[0]))
        address(first, to, [a for a in dict.fromkeys(a for r in recipients for a in r[1]) if a not in to])

    def recipients(self, file):
        """Maintainers, and reviewers and lists, as scripts/get_maintainer.pl names them."""
        try:
            p = subprocess.run(['scripts/get_maintainer.pl', '--no-git', '--no-git-fallback', '--roles', str(file)],
                               cwd=self.tree_dir, env=environment(), capture_output=True, encoding='utf-8', check=False)
        except OSError as e:
            raise Refuse(f'build/linux/scripts/get_maintainer.pl: {e.strerror}') from None
        if p.returncode:
            raise Refuse(f'scripts/get_maintainer.pl {file.name}: {p.stderr.strip().split(chr(10))[-1]}')
        to, cc = [], []
        for line in p.stdout.splitlines():
            who, _, role = line.rpartition(' (')
            while role and role.count('(') + 1 < role.count(')'):
                who, _, more = who.rpartition(' (')
                role = more + ' (' + role
            name, mail = email.utils.parseaddr(who)
            if mail:
                (to if re.search('maintainer:|supporter:', role) else cc).append(email.utils.formataddr((name, mail)))
        return to, [a for a in dict.fromkeys(cc) if a not in to]


def identity(date, name='series', mail='series@localhost'):
    return {f'GIT_{who}_{what}': value for who in ('AUTHOR', 'COMMITTER')
            for what, value in (('NAME', name), ('EMAIL', mail), ('DATE', date))}


def encode(subject):
    return subject if subject.isascii() else email.header.Header(subject, 'utf-8').encode()


def address(file, to, cc):
    head, _, rest = file.read_bytes().partition(b'\n\n')
    for name, who in (('To', to), ('Cc', cc)):
        if who:
            head += f'\n{name}: {(","+chr(10)+"    ").join(who)}'.encode()
    file.write_bytes(head + b'\n\n' + rest)


def progress(text):
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        print('\r\033[K' + text[:width], end='', file=sys.stderr, flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    ap.add_argument('--top', type=pathlib.Path, default=HERE.parents[1], help='the repository')
    sub = ap.add_subparsers(dest='command', required=True)
    sub.add_parser('tree', help='patches/ to build/linux')
    cmd = sub.add_parser('refresh', help='build/linux to patches/')
    cmd.add_argument('--force', action='store_true', help='overwrite what was changed in patches/ meanwhile')
    cmd = sub.add_parser('series', help='patches/ to mails in out/')
    cmd.add_argument('--version', default=os.environ.get('V') or '1', help='of the series (V=)')
    args = ap.parse_args()
    project = Project(args.top.resolve())
    try:
        if args.command != 'refresh' and (project.top / 'harness/tree/base').exists():
            if subprocess.run([project.top / 'harness/tree/base'], check=False).returncode:
                return 1
        project.need_base()
        with open(project.gitdir / 'harness.lock', 'w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if args.command == 'tree':
                project.tree()
            elif args.command == 'refresh':
                project.refresh(args.force)
            else:
                project.series(args.version)
    except Refuse as e:
        print(f'harness: {e}', file=sys.stderr)
        return 1
    except UnicodeDecodeError as e:
        print(f'harness: a text is not UTF-8: {e}', file=sys.stderr)
        return 1
    except OSError as e:
        print(f'harness: {e.filename or "write"}: {e.strerror}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
