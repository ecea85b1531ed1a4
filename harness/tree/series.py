#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""patches/ and the new files <-> the commits of build/linux <-> the mails in out/.

patches/series lists in order: `NAME.cover` begins a part (patches/NAME.cover is
its cover letter), `NNNN-slug.patch` is a commit, and the indented words below it
are the new files that land whole with it. `#` starts a comment.
"""
import argparse
import contextlib
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
    comments: list = field(default_factory=list)
    file: str = ''


@dataclass
class Series:
    parts: list         # (name, comments above it)
    patches: list
    tail: list          # comments after the last entry


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
    return Patch(lines[0][9:].strip(), clean_body(body), diff)


def clean_body(body):
    """Without the sign-off, which belongs to whoever sends the series."""
    while True:
        start, gap, last = body.strip('\n').rpartition('\n\n')
        last = re.sub(r'^Signed-off-by: .*\n?', '', last, flags=re.M).strip('\n')
        if last or not gap:
            return start + gap + last
        body = start


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
        series, comments, seen = Series([], [], []), [], set()
        path = self.patches / 'series'
        for line in path.read_text().split('\n') if path.exists() else []:
            words = line.split('#')[0].split()
            if not words:
                if line.strip() or comments:
                    comments.append(line)
                continue
            for word in words:
                new = line[0].isspace()
                file = self.top / word if new else self.patches / word
                if not file.is_file() or file.is_symlink():
                    raise Refuse(f'patches/series: {word}: no such file')
                if word in seen:
                    raise Refuse(f'patches/series: {word} is listed twice')
                seen.add(word)
                if new:
                    if not series.patches:
                        raise Refuse(f'patches/series: {word}: a new file before the first patch')
                    self.check_new(word)
                    series.patches[-1].new[word] = (os.access(file, os.X_OK), file.read_bytes())
                elif word.endswith('.cover'):
                    if series.patches and not series.parts:
                        raise Refuse(f'patches/series: {word}: a patch comes before the first part')
                    series.parts.append((word[:-6], comments))
                    comments = []
                elif word.endswith('.patch'):
                    patch = parse_patch(file.read_bytes(), word)
                    patch.file, patch.comments, comments = word, comments, []
                    patch.part = max(len(series.parts) - 1, 0)
                    series.patches.append(patch)
                else:
                    raise Refuse(f'patches/series: {word}: neither a .patch nor a .cover')
        while comments and not comments[-1].strip():
            comments.pop()
        series.tail = comments
        return series

    def format_series(self, series):
        lines = []
        for n in range(max(len(series.parts), 1)):
            if series.parts:
                name, comments = series.parts[n]
                lines += [*comments, f'{name}.cover']
            for patch in (p for p in series.patches if p.part == n):
                lines += [*patch.comments, patch.file, *(f'    {path}' for path in sorted(patch.new))]
        return ''.join(line + '\n' for line in lines + series.tail).encode()

    def check_new(self, path):
        if '/' not in path or path.split('/')[0] in OURS:
            raise Refuse(f'{path}: the name of this new file belongs to this repository')
        if re.search(r'''[\s#"'\\]''', path) or not path.isprintable():
            raise Refuse(f'{path}: a new file with white space or a quote in its name')

    def stored(self, series):
        """All that refresh writes: path in the repository: (executable, content)."""
        files = {'patches/series': (False, self.format_series(series))}
        for patch in series.patches:
            files['patches/' + patch.file] = (False, format_patch(patch))
            files |= patch.new
        return files

    def record(self):
        with contextlib.suppress(OSError, ValueError):
            return json.loads(self.record_file.read_text())
        return {'files': {}, 'commits': {}}

    def write_record(self, head, files, commits):
        text = json.dumps({'files': {k: sha1(v[1]) for k, v in files.items()}, 'commits': commits})
        tmp = self.record_file.with_suffix('.tmp')
        tmp.write_text(text)
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

    def commits(self, series, base):
        """Give the commits of the series on top of base, and {key: commit} in order."""
        known, result, key = self.record()['commits'], {}, base
        keys = []
        for patch in series.patches:
            parts = [key.encode(), patch.subject.encode(), patch.body.encode(), patch.diff]
            for path, (executable, content) in sorted(patch.new.items()):
                parts += [path.encode(), b'%d' % executable, content]
            key = sha1(*parts)
            keys.append(key)
        asked = ''.join(known.get(k, base) + '\n' for k in keys).encode()
        there = self.git('cat-file', '--batch-check=%(objecttype)', data=asked).decode().split('\n')
        parent = base
        todo = list(zip(series.patches, keys))
        for key, kind in zip(keys, there):
            if key not in known or kind != 'commit':
                break
            parent = result[key] = known[key]
            todo.pop(0)
        if not todo:
            return result
        new = [path for patch, _ in todo for path in patch.new]
        if new:
            old = self.git('ls-tree', '--name-only', '-z', base, '--', *new).decode().split('\0')[0]
            if old:
                raise Refuse(f'{old} is listed as a new file, but Linux has it: it must be a patch')
        index = self.gitdir / 'harness-index'
        index.unlink(missing_ok=True)
        (self.gitdir / 'harness-index.lock').unlink(missing_ok=True)
        env = {'GIT_INDEX_FILE': str(index)}
        try:
            self.git('read-tree', parent, env=env)
            for n, (patch, key) in enumerate(todo, len(result) + 1):
                progress(f'[{n}/{len(keys)}] {patch.subject}')
                parent = result[key] = self.commit(patch, parent, env)
        finally:
            index.unlink(missing_ok=True)
            progress('')
        return result

    def commit(self, patch, parent, env):
        if patch.diff.strip():
            p = self.git_run('apply', '--cached', '--whitespace=nowarn', '-', data=patch.diff, env=env)
            if p.returncode:
                text = p.stderr.decode(errors='replace')
                where = re.search(r'patch failed: (.*)', text) or re.search(r'error: (.*)', text)
                raise Refuse(f'patches/{patch.file} does not apply: {where[1] if where else text.strip()}')
        info = b''
        for path, (executable, content) in patch.new.items():
            blob = self.git('hash-object', '-w', '--no-filters', '--stdin', data=content).strip()
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
        commits = self.commits(series, base)
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
        new = Series(old.parts, [], old.tail)
        known = {p.subject: p for p in old.patches}
        in_base = set(self.git('ls-tree', '-r', '--name-only', '-z', base).split(b'\0'))
        added, subjects, parent = {}, set(), base
        for commit in self.git('rev-list', '--reverse', 'base..HEAD').decode().split():
            patch = self.read_commit(parent, commit, in_base, added)
            if patch.subject in subjects:
                raise Refuse(f'build/linux: two commits have the subject "{patch.subject}"')
            subjects.add(patch.subject)
            before = new.patches[-1].part if new.patches else 0
            if patch.subject in known:
                patch.part = known[patch.subject].part
                patch.comments = known[patch.subject].comments
            else:
                patch.part = before
            if patch.part < before:
                raise Refuse(f'build/linux: commit {self.subject_of(commit)} is of the part '
                             f'{old.parts[patch.part][0]} but comes after one of {old.parts[before][0]}')
            new.patches.append(patch)
            patch.file = f'{len(new.patches):04}-{slug(patch.subject)}.patch'
            parent = commit
        files = self.stored(new)
        changed = self.write(files, {'patches/' + p.file for p in old.patches} |
                             {path for p in old.patches for path in p.new}, force)
        self.write_record(parent, files, self.record()['commits'])
        print(f'patches/: {len(new.patches)} patches, {changed} files changed')

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
        patch = Patch(subject, clean_body(body))
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
        for path, (executable, content) in files.items():
            file = self.top / path
            there = file.read_bytes() if file.exists() else None
            if there != content or os.access(file, os.X_OK) != executable:
                todo[path] = (executable, content)
        for path in [] if force else [*todo, *gone]:
            file = self.top / path
            if path in was and file.exists() and sha1(file.read_bytes()) != was[path]:
                raise Refuse(f'{path} was changed here since the last make tree and make refresh would '
                             'overwrite it: undo that, or harness/tree/series.py refresh --force')
        for stale in self.top.glob('.refresh-*'):
            shutil.rmtree(stale)
        stage = pathlib.Path(tempfile.mkdtemp(prefix='.refresh-', dir=self.top))
        try:
            for n, (executable, content) in enumerate(todo.values()):
                (stage / str(n)).write_bytes(content)
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
        p = subprocess.run(['git', '-c', 'user.useConfigOnly=true', 'var', 'GIT_AUTHOR_IDENT'],
                           cwd=self.top, capture_output=True, text=True, check=False)
        who = re.match(r'(.*) <(.*)> \d+ \S+$', p.stdout.strip())
        if not who:
            raise Refuse('git has no identity to sign off with: '
                         'set git config user.name and git config user.email')
        series, commits = self.tree()
        if not series.parts or not series.patches:
            raise Refuse('patches/series has no patch in a part: nothing to send')
        covers = {}
        for name, _ in series.parts:
            text = (self.patches / f'{name}.cover').read_text().strip('\n')
            covers[name] = text.partition('\n')[::2]
            if not covers[name][0].strip() or not covers[name][1].strip('\n'):
                raise Refuse(f'patches/{name}.cover: not of the form subject, blank line, text')
        for patch in series.patches:
            cut = re.search(r'^(---|---[ \t].*|diff -.*|Index: .*|From .*\d:\d\d.*)$', patch.body, re.M)
            if cut:
                raise Refuse(f'patches/{patch.file}: git am would end the message at "{cut[0]}": indent it')
        base = start = self.need_base()
        now = int(time.time()) - len(series.patches)
        stage = pathlib.Path(tempfile.mkdtemp(prefix='.series-', dir=self.top))
        try:
            for n, (name, _) in enumerate(series.parts):
                end = start
                for patch, commit in zip(series.patches, commits.values()):
                    if patch.part == n:
                        now += 1
                        env = identity(f'{now} +0000', *who.groups())
                        end = self.commit_tree(commit + '^{tree}', end, patch.subject, patch.body, env)
                (stage / name).mkdir()
                if end != start:
                    self.mails(stage / name, f'{start}..{end}', base, version, covers[name],
                               identity(f'{now} +0000', *who.groups()))
                start = end
            for name, _ in series.parts:
                out = self.top / 'out' / name
                out.parent.mkdir(exist_ok=True)
                shutil.rmtree(out, ignore_errors=True)
                (stage / name).replace(out)
                print(f'out/{name}: {max(len(list(out.iterdir())) - 1, 0)} patches and a cover letter')
        finally:
            shutil.rmtree(stage)

    def mails(self, out, commits, base, version, cover, env):
        self.git('format-patch', '-q', '-o', str(out), '--numbered', '--cover-letter', '--thread=shallow',
                 '--signoff', f'--base={base}', '--subject-prefix=PATCH',
                 *([f'-v{version}'] if version != '1' else []), commits, env=env)
        first, *rest = sorted(out.iterdir())
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            recipients = list(pool.map(self.recipients, rest))
        for file, (to, cc) in zip(rest, recipients):
            address(file, to, cc)
        subject, text = cover
        data = first.read_text()
        data = data.replace('*** SUBJECT HERE ***', encode(subject), 1)
        data = data.replace('*** BLURB HERE ***', text.strip('\n'), 1)
        if not data.isascii() and '\nMIME-Version:' not in data:
            data = data.replace('\n\n', '\nMIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\n'
                                'Content-Transfer-Encoding: 8bit\n\n', 1)
        first.write_text(data)
        to = list(dict.fromkeys(a for r in recipients for a in r[0]))
        address(first, to, [a for a in dict.fromkeys(a for r in recipients for a in r[1]) if a not in to])

    def recipients(self, file):
        """Maintainers, and reviewers and lists, as scripts/get_maintainer.pl names them."""
        try:
            p = subprocess.run(['scripts/get_maintainer.pl', '--no-git', '--no-git-fallback', '--roles', str(file)],
                               cwd=self.tree_dir, capture_output=True, text=True, check=False)
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
