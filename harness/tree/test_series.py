#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""make base, tree, refresh and series, on a fake Linux of a few files."""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
MAINTAINER = """#!/bin/sh
grep -q '^[-+]' "$4" || exit 1
echo 'Ann Maintainer <ann@example.org> (maintainer:THIS (AND THAT))'
echo 'Zoë Reader <zoe@example.org> (reviewer:THIS (AND THAT))'
echo 'list@example.org (open list:THIS)'
"""


class Case(unittest.TestCase):
    templates = {}

    def setUp(self):
        """A copy of what the class's prepare() makes."""
        self.place('series')
        template = self.templates.get(type(self))
        if template:
            shutil.copytree(template.name, self.tmp, symlinks=True, dirs_exist_ok=True)
            return
        self.prepare()
        template = self.templates[type(self)] = tempfile.TemporaryDirectory(prefix='series')
        shutil.copytree(self.tmp, template.name, symlinks=True, dirs_exist_ok=True)
        unittest.addModuleCleanup(template.cleanup)

    def place(self, prefix):
        tmp = tempfile.TemporaryDirectory(prefix=prefix)
        self.addCleanup(tmp.cleanup)
        self.tmp = pathlib.Path(tmp.name)
        self.top = self.tmp / 'top'
        self.linux = self.top / 'build/linux'
        self.env = {k: v for k, v in os.environ.items() if not k.startswith('GIT_') and k not in ('V', 'LINUX_SRC')}
        self.env |= {'GIT_CONFIG_GLOBAL': str(self.tmp / 'gitconfig'), 'GIT_CONFIG_NOSYSTEM': '1',
                     'HOME': str(self.tmp), 'EMAIL': ''}

    def prepare(self):
        (self.top / 'patches').mkdir(parents=True)
        (self.tmp / 'gitconfig').write_text('[user]\nname = Test Er\nemail = tester@example.org\n'
                                            '[diff]\nnoprefix = true\ncontext = 1\nrenames = copies\n')
        self.write({'Makefile': 'VERSION = 9\nPATCHLEVEL = 1\nSUBLEVEL = 3\n',
                    'drivers/a.c': ''.join(f'line {n}\n' for n in range(40)),
                    'drivers/no newline.c': 'one\ntwo', 'drivers/gone.c': 'x\n--\n',
                    'drivers/empty.c': '', 'tool.sh': '#!/bin/sh\n',
                    'scripts/get_maintainer.pl': MAINTAINER})
        (self.linux / 'scripts/get_maintainer.pl').chmod(0o755)
        self.git('init', '-q', '-b', 'series')
        self.git('add', '-A')
        self.git('commit', '-q', '-m', 'Linux 9.1.3')
        self.git('tag', 'base')

    def write(self, files):
        for path, content in files.items():
            file = self.linux / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)

    def git(self, *args, cwd=None, **kw):
        return subprocess.run(['git', *args], cwd=cwd or self.linux, env=self.env, check=True,
                              capture_output=True, text=True, **kw).stdout.strip()

    def commit(self, message, files=(), **kw):
        self.write(dict(files))
        self.git('add', '-A')
        self.git('commit', '-q', '--cleanup=verbatim', '-F', '-', input=message, **kw)

    def run_series(self, *args, **env):
        return subprocess.run([sys.executable, HERE / 'series.py', '--top', self.top, *args], env=self.env | env,
                              capture_output=True, text=True, check=False)

    def ok(self, *args, **env):
        p = self.run_series(*args, **env)
        self.assertEqual((p.returncode, p.stderr), (0, ''))
        return p.stdout

    def stored(self):
        """Every file of the repository, with its mode."""
        return {str(f.relative_to(self.top)): (f.read_bytes(), f.stat().st_mode)
                for f in self.top.rglob('*') if f.is_file() and 'build' not in f.relative_to(self.top).parts[:1]}

    def state(self):
        return (self.stored(), self.git('rev-parse', 'HEAD', 'base'), self.git('status', '--porcelain'),
                self.git('for-each-ref'))

    def refused(self, message, *args, **env):
        """It ends in that one line and has changed nothing."""
        before = self.state()
        p = self.run_series(*args, **env)
        self.assertRegex(p.stderr, rf'\Aharness: [^\n]*{message}[^\n]*\n\Z')
        self.assertNotEqual(p.returncode, 0)
        self.assertEqual(self.state(), before)

    def store(self, files):
        for path, text in files.items():
            file = self.top / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, 'utf-8')

    def parts(self):
        self.store({'patches/series': '# the series\n\nfixes   # first\nsge\n',
                    'patches/fixes/cover': 'Fixes\n\nWhat was broken.\n\nTree: some (for-next)\n',
                    'patches/sge/cover': 'SGEs für alle\n\nWhy: größer.\n\nTree: net\nNeeds: fixes\n'})

    def patches(self, part=''):
        return sorted(str(f.relative_to(self.top / 'patches')) for f in (self.top / 'patches' / part).rglob('*.patch'))

    def move(self, old, new):
        (self.top / 'patches' / old).rename(self.top / 'patches' / new)

    def odd_commits(self):
        self.commit('a: one\n\nWhy one.\n\nFixes: 012345678901 ("x")\nSigned-off-by: X <x@example.org>\n'
                    'Cc: stable@vger.kernel.org # 9.0\n',
                    {'drivers/a.c': self.read('drivers/a.c').replace('line 9\n', 'line nine\n')})
        self.commit('a: new files only, and a subject that is much longer than a file name may be\n\nWhy.\n',
                    {'drivers/new/one.c': 'int one;\n', 'drivers/new/no-newline.h': 'int two;'})
        self.write({'drivers/run.sh': '#!/bin/sh\n', 'drivers/void.h': ''})
        (self.linux / 'drivers/run.sh').chmod(0o755)
        (self.linux / 'tool.sh').chmod(0o755)
        self.commit('ä: modes\n\nÄpfel, trailing blanks:  \n\n\n  indented\n')
        self.git('rm', '-q', 'drivers/gone.c', 'drivers/empty.c')
        self.commit('a: gone\n\nFrom here on no gone.c:\nFrom nobody.\n',
                    {'drivers/no newline.c': 'one\n2', 'drivers/a.c': self.read('drivers/a.c') + ' \t\nend \n\n'})
        self.git('mv', 'tool.sh', 'drivers/tool.sh')
        self.commit('a: renamed')
        self.commit('a: empty file filled\n\nback\n', {'drivers/empty.c': 'a\n'})

    def read(self, path):
        return (self.linux / path).read_text()


class Inverse(Case):
    def test_there_and_back(self):
        self.parts()
        self.odd_commits()
        body = 'From nobody Mon Sep 17 00:00:00 2001\ntext\n---\n ---\ndiff --git a/x b/x\n--- a/x\n\nIndex: y\n'
        self.write({'drivers/a.c': self.read('drivers/a.c').replace('line 30', 'line thirty')})
        self.commit('a: odd body\n\n' + body)
        trees = self.git('log', '--format=%T')
        bodies = self.git('log', '--format=%s%n%b', 'base..')
        self.ok('refresh')
        first = self.stored()
        self.assertEqual(first['drivers/run.sh'][1] & 0o777, 0o755)
        for path, (content, _) in first.items():
            if path.endswith('.patch'):
                self.assertNotRegex(content.decode(), r'(?m)^(index |Signed-off-by|Date:|From: )')
        # From nothing but the repository
        self.git('checkout', '-q', '-B', 'series', 'base')
        self.git('update-ref', '-d', 'refs/harness/exported')
        (self.linux / '.git/harness.json').unlink()
        self.ok('tree')
        self.assertEqual(self.git('log', '--format=%T'), trees)
        self.assertEqual(self.git('status', '--porcelain'), '')
        self.assertEqual(self.git('log', '--format=%s%n%b', 'base..').split(),
                         bodies.replace('Signed-off-by: X <x@example.org>', '').split())
        self.assertIn(body.strip(), self.git('log', '-1', '--format=%b'))
        head = self.git('rev-parse', 'HEAD')
        self.ok('refresh')
        self.assertEqual(self.stored(), first)
        # The same patches give the same hashes, whoever runs it
        (self.linux / '.git/harness.json').unlink()
        self.git('checkout', '-q', '-B', 'series', 'base')
        self.ok('tree')
        self.assertEqual(self.git('rev-parse', 'HEAD'), head)
        self.assertEqual(self.git('log', '-1', '--format=%at %ct'), '1767225600 1767225600')

    def test_empty(self):
        for text in '', '# nothing yet\n', 'fixes\nsge\n':
            self.parts()
            self.store({'patches/series': text})
            self.ok('tree')
            self.assertEqual(self.git('rev-parse', 'HEAD'), self.git('rev-parse', 'base'))
            self.ok('refresh')
            self.assertEqual((self.top / 'patches/series').read_text(), text)

    def test_only_what_differs_is_touched(self):
        self.parts()
        self.odd_commits()
        self.ok('refresh')
        self.ok('tree')
        os.utime(self.linux / 'drivers/a.c', (1, 1))
        before = self.git('rev-parse', 'HEAD~1')
        (self.top / 'drivers/new/one.c').write_text('int one = 1;\n')
        self.ok('tree')
        self.assertEqual(self.read('drivers/new/one.c'), 'int one = 1;\n')
        self.assertEqual((self.linux / 'drivers/a.c').stat().st_mtime, 1)
        self.assertNotEqual(self.git('rev-parse', 'HEAD~1'), before)
        self.assertEqual(self.ok('tree'), '')

    def test_removed_commit_takes_its_files_along(self):
        self.parts()
        self.odd_commits()
        self.ok('refresh')
        self.ok('tree')
        (self.top / 'drivers/mine.txt').write_text('not of the series\n')
        self.git('reset', '-q', '--hard', 'HEAD~5')
        self.ok('refresh')
        self.assertEqual(self.patches(), ['fixes/0001-a-one.patch'])
        self.assertEqual(os.listdir(self.top / 'drivers'), ['mine.txt'])
        self.ok('tree')

    def test_new_file_goes_with_its_patch(self):
        self.parts()
        self.odd_commits()
        self.ok('refresh')
        patch = self.top / 'patches/fixes/0003-modes.patch'
        self.assertIn('\n---\nNew file: drivers/run.sh\nNew file: drivers/void.h\ndiff --git a/tool.sh ',
                      patch.read_text())
        self.move('fixes/0003-modes.patch', 'fixes/0000-modes.patch')
        self.ok('tree')
        self.assertEqual(self.git('diff', '--name-only', 'base', 'HEAD~5'), 'drivers/run.sh\ndrivers/void.h\ntool.sh')
        self.ok('refresh')
        self.assertEqual(self.patches()[0], 'fixes/0001-modes.patch')


class Parts(Case):
    """Which part a commit is of."""

    def prepare(self):
        super().prepare()
        self.parts()
        for name in 'fix: one', 'fix: two', 'sge: one', 'sge: two':
            self.commit(name + ('\n\nWhy.\n\nFixes: x\nPart: sge' if name == 'sge: one' else ''),
                        {name.replace(': ', '/') + '.c': 'x\n'})
        self.ok('refresh')
        self.ok('tree')

    def rewrite(self, *names):
        """Commits with these subjects, from the base: 'SUBJECT|PART' asks for a part."""
        self.git('reset', '-q', '--hard', 'base')
        for n, name in enumerate(names):
            name, _, part = name.partition('|')
            self.commit(name + (f'\n\nPart: {part}' if part else ''), {f'fix/{n}.c': name + '\n'})

    def becomes(self, *want):
        series = (self.top / 'patches/series').read_text()
        self.ok('refresh')
        self.assertEqual([p.replace('.patch', '') for p in self.patches()], list(want))
        self.assertEqual((self.top / 'patches/series').read_text(), series)
        self.ok('tree')

    def test_asked_for(self):
        self.assertEqual(self.patches(), ['fixes/0001-fix-one.patch', 'fixes/0002-fix-two.patch',
                                          'sge/0001-sge-one.patch', 'sge/0002-sge-two.patch'])
        text = (self.top / 'patches/sge/0001-sge-one.patch').read_text()
        self.assertEqual(text, 'Subject: sge: one\n\nWhy.\n\nFixes: x\n\n---\nNew file: sge/one.c\n')
        self.assertEqual(self.git('log', '-1', '--format=%b', 'HEAD~1'), 'Why.\n\nFixes: x')
        self.becomes('fixes/0001-fix-one', 'fixes/0002-fix-two', 'sge/0001-sge-one', 'sge/0002-sge-two')

    def test_new_one_follows(self):
        before = self.stored()
        self.rewrite('fix: one', 'fix: two', 'new', 'sge: one', 'newer', 'sge: two', 'newest')
        self.becomes('fixes/0001-fix-one', 'fixes/0002-fix-two', 'fixes/0003-new',
                     'sge/0001-sge-one', 'sge/0002-newer', 'sge/0003-sge-two', 'sge/0004-newest')
        self.rewrite('fix: zero', 'fix: one', 'fix: two', 'sge: one', 'sge: two')
        self.becomes('fixes/0001-fix-zero', 'fixes/0002-fix-one', 'fixes/0003-fix-two',
                     'sge/0001-sge-one', 'sge/0002-sge-two')
        self.assertEqual([n for n in before if n.startswith('patches/sge')],
                         [n for n in self.stored() if n.startswith('patches/sge')])

    def test_reworded(self):
        self.rewrite('1', '2', 'sge: first', 'sge: two')
        self.becomes('fixes/0001-1', 'fixes/0002-2', 'sge/0001-sge-first', 'sge/0002-sge-two')
        self.rewrite('1', '2', '3', 'sge: two')
        self.becomes('fixes/0001-1', 'fixes/0002-2', 'sge/0001-3', 'sge/0002-sge-two')

    def test_moved_commit(self):
        self.rewrite('fix: one', 'sge: one', 'fix: two', 'sge: two')
        self.refused('"fix: two" is of the part fixes but comes after one of sge: move it, '
                     'or end its message with "Part: sge"', 'refresh')
        self.rewrite('fix: one', 'sge: one', 'fix: two|sge', 'sge: two')
        self.becomes('fixes/0001-fix-one', 'sge/0001-sge-one', 'sge/0002-fix-two', 'sge/0003-sge-two')
        self.rewrite('fix: one|typo')
        self.refused('"fix: one" asks for the part typo, which patches/series does not name', 'refresh')

    def test_new_part(self):
        self.store({'patches/series': 'fixes\nmore\nsge\n', 'patches/more/cover': 'More\n\nText\n\nTree: x\n'})
        self.rewrite('fix: one', 'fix: two|more', 'another', 'sge: one', 'sge: two')
        self.becomes('fixes/0001-fix-one', 'more/0001-fix-two', 'more/0002-another',
                     'sge/0001-sge-one', 'sge/0002-sge-two')

    def test_moved_patch_files(self):
        self.store({'patches/series': 'fixes\nsge\ntests\n', 'patches/tests/cover': 'Tests\n\nText\n\nTree: x\n'})
        head = self.git('rev-parse', 'HEAD')
        self.move('sge/0002-sge-two.patch', 'tests/0002-sge-two.patch')
        self.move('fixes/0002-fix-two.patch', 'sge/0000-fix-two.patch')
        self.becomes('fixes/0001-fix-one', 'sge/0001-fix-two', 'sge/0002-sge-one', 'tests/0001-sge-two')
        self.assertEqual(self.git('rev-parse', 'HEAD'), head)
        # In another order, which only make tree can tell
        self.move('fixes/0001-fix-one.patch', 'tests/0000-fix-one.patch')
        self.ok('tree')
        self.becomes('sge/0001-fix-two', 'sge/0002-sge-one', 'tests/0001-fix-one', 'tests/0002-sge-two')
        self.assertEqual(self.git('log', '--format=%s', 'base..'), 'sge: two\nfix: one\nsge: one\nfix: two')

    def test_no_part_yet(self):
        shutil.rmtree(self.top / 'patches')
        self.refused('names no part', 'refresh', '--force')


class Refusals(Case):
    def prepare(self):
        super().prepare()
        self.parts()
        self.commit('a: one', {'drivers/a.c': self.read('drivers/a.c').replace('line 9\n', 'line nine\n')})
        self.commit('a: two', {'drivers/two.c': 'two\n'})
        self.ok('refresh')
        self.ok('tree')

    def test_uncommitted(self):
        self.write({'drivers/two.c': 'three\n'})
        self.refused(r'uncommitted changes \(drivers/two.c\)', 'refresh')
        (self.top / 'drivers/two.c').write_text('2\n')
        self.refused(r'uncommitted changes \(drivers/two.c\)', 'tree')

    def test_untracked(self):
        self.write({'drivers/three.c': 'three\n'})
        self.refused(r'uncommitted changes \(drivers/three.c\)', 'refresh')

    def test_untracked_in_the_way(self):
        self.write({'drivers/three.c': 'mine\n'})
        patch = self.top / 'patches/fixes/0002-a-two.patch'
        patch.write_text(patch.read_text() + 'New file: drivers/three.c\n')
        (self.top / 'drivers/three.c').write_text('theirs\n')
        self.refused('git checkout: .*overwritten.*drivers/three.c', 'tree')

    def test_merge(self):
        self.git('checkout', '-q', '-b', 'side', 'HEAD~1')
        self.commit('a: side', {'drivers/side.c': 'x\n'})
        self.git('checkout', '-q', 'series')
        self.git('merge', '-q', '--no-edit', 'side')
        self.refused('is a merge', 'refresh')

    def test_rebase_in_progress(self):
        self.git('-c', 'sequence.editor=sed -i s/^pick/edit/', 'rebase', '-q', '-i', 'base')
        self.refused('rebase is in progress', 'refresh')
        (self.top / 'drivers/two.c').write_text('2\n')
        self.refused('rebase is in progress', 'tree')

    def test_not_on_base(self):
        self.git('checkout', '-q', '--orphan', 'other')
        self.git('commit', '-q', '-m', 'other')
        self.refused('not on top of', 'refresh')

    def test_new_file_touched_twice(self):
        self.commit('a: again', {'drivers/two.c': 'three\n'})
        self.refused(r'"a: again".* touches drivers/two.c, new in \w+ \("a: two"\)', 'refresh')

    def test_new_file_deleted_or_renamed(self):
        self.git('mv', 'drivers/two.c', 'drivers/three.c')
        self.commit('a: renamed')
        self.refused(r'"a: renamed".* touches drivers/two.c, new in \w+ \("a: two"\)', 'refresh')

    def test_empty_commit(self):
        self.git('commit', '-q', '--allow-empty', '-m', 'a: nothing')
        self.refused('"a: nothing".* changes nothing', 'refresh')

    def test_binary(self):
        self.commit('a: binary', {'drivers/three.bin': 'a\0b'})
        self.refused('"a: binary".*drivers/three.bin is binary', 'refresh')

    def test_symlink(self):
        (self.linux / 'drivers/link').symlink_to('a.c')
        self.commit('a: link')
        self.refused('drivers/link is not a regular file', 'refresh')

    def test_subjects(self):
        self.commit('a: two', {'drivers/three.c': 'a'})
        self.refused('two commits have the subject "a: two"', 'refresh')
        for word in 'fixup', 'squash':
            self.git('reset', '-q', '--hard', 'HEAD~1')
            self.commit(f'{word}! a: two', {'drivers/three.c': 'a'})
            self.refused('autosquash', 'refresh')

    def test_names(self):
        for path, why in (('patches/x', 'belongs to this repository'), ('top.c', 'belongs to this repository'),
                          ('drivers/a b.c', 'white space')):
            self.commit('a: name', {path: 'a\n'})
            self.refused(f'{path}.*{why}', 'refresh')
            self.git('reset', '-q', '--hard', 'HEAD~1')

    def test_message_not_utf8(self):
        self.write({'drivers/a.c': 'x\n'})
        subprocess.run(['git', '-c', 'i18n.commitEncoding=ISO-8859-1', 'commit', '-q', '-a', '-F', '-'], cwd=self.linux, env=self.env,
                       input=b'a: \xe9t\xe9\n', capture_output=True, check=True)
        self.refused('not UTF-8', 'refresh')

    def test_commits_are_not_lost(self):
        self.git('checkout', '-q', '--detach', 'base')
        self.commit('a: mine', {'drivers/a.c': 'mine\n'})
        self.refused('make refresh', 'tree')
        self.git('checkout', '-q', 'series')
        self.commit('a: mine', {'drivers/a.c': 'mine\n'})
        self.refused('make refresh', 'tree')
        self.git('checkout', '-q', '--detach', 'base')
        self.refused('make refresh', 'tree')
        self.git('checkout', '-q', 'series')
        self.ok('refresh')
        self.ok('tree')
        self.assertEqual(self.read('drivers/a.c'), 'mine\n')

    def test_edits_in_the_repository_are_not_lost(self):
        (self.top / 'drivers/two.c').write_text('edited here\n')
        self.refused('drivers/two.c was changed here', 'refresh')
        self.ok('refresh', '--force')
        self.assertEqual((self.top / 'drivers/two.c').read_text(), 'two\n')

    def test_does_not_apply(self):
        patch = self.top / 'patches/fixes/0001-a-one.patch'
        text = patch.read_text()
        patch.write_text(text.replace(' line 8', ' line eight'))
        self.refused('patches/fixes/0001-a-one.patch does not apply: drivers/a.c:7', 'tree')
        patch.write_text(text.replace('drivers/a.c', 'drivers/absent.c'))
        self.refused('patches/fixes/0001-a-one.patch does not apply: drivers/absent.c', 'tree')
        patch.write_text(text[:-20])
        self.refused('patches/fixes/0001-a-one.patch does not apply: ', 'tree')
        patch.write_text(text)
        self.ok('tree')

    def test_series_file(self):
        for text, why in (('fixes\nx\n', 'x: no file patches/x/cover'),
                          ('fixes\nsge\nfixes\n', 'fixes is listed twice'),
                          ('fixes.cover\n', 'fixes.cover: no name of a part'), ('../x\n', 'no name of a part'),
                          ('fixes sge\n', 'no name of a part'),
                          ('sge\nfixes\n', 'patches/sge/cover: it needs fixes, which is no part before it'),
                          ('sge\n', 'patches/sge/cover: it needs fixes, which is no part before it')):
            self.store({'patches/series': text})
            self.refused(why, 'tree')
        self.refused(why, 'refresh')
        self.refused(why, 'series')
        self.store({'patches/series': 'fixes\n'})
        for file in 'sge/0001-a-one.patch', '0001-a-one.patch':
            self.move('fixes/0001-a-one.patch', file)
            self.refused(f'patches/{file} is in no part that patches/series names', 'tree')
            self.move(file, 'fixes/0001-a-one.patch')
        self.ok('tree')

    def test_new_files(self):
        patch = self.top / 'patches/fixes/0002-a-two.patch'
        text = patch.read_text()
        self.store({'drivers/a.c': 'x\n'})
        for file, why in (('drivers/x.c', 'drivers/x.c: no such file'), ('patches/x', 'belongs to this repository'),
                          ('drivers/a.c', 'drivers/a.c is listed as a new file, but Linux has it')):
            patch.write_text(text + f'New file: {file}\n')
            self.refused(why, 'tree')
        # The first patch that does not apply is named
        first = self.top / 'patches/fixes/0001-a-one.patch'
        good = first.read_text()
        first.write_text(good.replace(' line 8', ' line eight'))
        self.refused('0001-a-one.patch does not apply', 'tree')
        first.write_text(good)
        patch.write_text(text)
        (self.top / 'patches/fixes/0003-x.patch').write_text(text)
        self.refused('patches/fixes/0003-x.patch: drivers/two.c is new in another patch, too', 'tree')

    def test_patch_file(self):
        patch = self.top / 'patches/fixes/0001-a-one.patch'
        text = patch.read_text()
        for bad, why in ((text.replace('Subject: ', 'Re: '), 'not of the form'), ('Subject: x\n\n', 'not of the form'),
                         ('Subject: x\n\n---\n', 'changes nothing')):
            patch.write_text(bad)
            self.refused(f'0001-a-one.patch:? {why}', 'tree')

    def test_no_base(self):
        self.git('tag', '-d', 'base')
        before = self.stored()
        for command in 'tree', 'refresh', 'series':
            p = self.run_series(command)
            self.assertRegex(p.stderr, r'\Aharness: [^\n]*no tag "base"[^\n]*\n\Z')
            self.assertEqual((p.returncode, self.stored()), (1, before))


class Mails(Case):
    def prepare(self):
        super().prepare()
        self.parts()
        self.odd_commits()
        self.ok('refresh')
        for n in 4, 5, 6:
            file = self.patches('fixes')[-1]
            self.move(file, file.replace('fixes', 'sge'))
        self.ok('tree')

    def am(self, base, *parts):
        """The mails of these parts on top of base, by git am; their trees."""
        clone = self.tmp / 'clone'
        shutil.rmtree(clone, ignore_errors=True)
        self.git('clone', '-q', str(self.linux), str(clone), cwd=self.tmp)
        self.git('checkout', '-q', '-B', 'x', base, cwd=clone)
        for part in parts:
            self.git('am', '-q', *map(str, sorted((self.top / 'out' / part).iterdir())[1:]), cwd=clone)
        return clone

    def test_git_am_gives_the_tree(self):
        self.ok('series')
        self.assertEqual({p.name: len(list(p.iterdir())) for p in (self.top / 'out').iterdir()}, {'fixes': 4, 'sge': 4})
        clone = self.am('base', 'fixes', 'sge')
        self.assertEqual(self.git('log', '--format=%T', 'base..', cwd=clone), self.git('log', '--format=%T', 'base..'))
        self.assertEqual(set(self.git('log', '--format=%an %ae', 'base..', cwd=clone).split('\n')),
                         {'Test Er tester@example.org'})
        self.assertRegex(self.git('log', '-1', '--format=%B', 'HEAD~5', cwd=clone),
                         r'\nFixes: 012345678901 \("x"\)\nCc: stable@vger.kernel.org # 9.0\n'
                         r'Signed-off-by: Test Er <tester@example.org>\Z')
        self.assertEqual(self.git('log', '--format=%s', 'base..', cwd=clone), self.git('log', '--format=%s', 'base..'))

    def test_headers(self):
        self.ok('series', V='2')
        mails = sorted((self.top / 'out/sge').iterdir())
        self.assertEqual([m.name[:8] for m in mails], [f'v2-000{n}-' for n in range(4)])
        for mail in mails:
            head = mail.read_text('utf-8').partition('\n\n')[0]
            self.assertRegex(head, r'\[PATCH net v2 \d/3\]')
            self.assertIn('\nTo: Ann Maintainer <ann@example.org>', head)
            self.assertIn('\nCc: =?utf-8?', head)
            self.assertIn('<zoe@example.org>,\n    list@example.org', head)
        cover = mails[0].read_text('utf-8')
        self.assertIn('\n\nWhy: größer.\n\nTree: net\nNeeds: "Fixes" (fixes)\n\nTest Er (3):\n', cover)
        self.assertIn('Content-Transfer-Encoding: 8bit', cover.partition('\n\n')[0])
        self.assertIn('=?utf-8?', cover.partition('Subject:')[2].partition('\n')[0])
        self.assertRegex(cover, r'\n 5 files changed, ')
        self.assertNotIn('***', cover)
        reply = '\nIn-Reply-To: ' + cover.partition('Message-Id: ')[2].partition('\n')[0]
        self.assertIn(reply.lower(), mails[1].read_text('utf-8').lower())
        fixes = next((self.top / 'out/fixes').glob('*cover*')).read_text('utf-8')
        self.assertIn('[PATCH v2 0/3] Fixes\n', fixes)
        self.assertIn('\nTree: some (for-next)\n\n', fixes)

    def test_base_note(self):
        def note(part):
            return next((self.top / 'out' / part).glob('*cover*')).read_text('utf-8').split('files changed')[1]
        self.ok('series')
        self.assertIn('\nbase: Linux 9.1.3 (v9.1.3 of the stable tree)\n', note('fixes'))
        self.assertNotIn('prerequisite', note('fixes'))
        # "a: one"; git patch-id and git format-patch differ over files without a newline
        first = self.git('-c', 'diff.noprefix=false', '-c', 'diff.context=3', 'show', '--format=', 'HEAD~5')
        patch_id = self.git('patch-id', '--stable', input=first + '\n').split()[0]
        self.assertEqual(note('sge').count('\nprerequisite-patch-id: '), 3)
        self.assertIn(f'\nprerequisite-patch-id: {patch_id}\n', note('sge'))
        self.git('config', 'harness.commit', '0123456789' * 4)
        self.ok('series')
        for part in 'fixes', 'sge':
            self.assertIn('\nbase-commit: ' + '0123456789' * 4 + '\n', note(part))
            self.assertNotIn(self.git('rev-parse', 'base'), note(part))

    def test_another_locale(self):
        def mails():
            return [re.sub(rb'(?im)^(Message-Id|In-Reply-To|References|Date|From [0-9a-f]+)\b.*', b'', f.read_bytes())
                    for f in sorted((self.top / 'out').rglob('*.patch'))]
        self.ok('series')
        want = mails()
        self.ok('series', LC_ALL='POSIX', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0', LANGUAGE='de')
        self.assertEqual(mails(), want)

    def test_no_identity(self):
        (self.tmp / 'gitconfig').write_text('')
        self.refused('no identity', 'series', EMAIL='x@example.org')

    def test_refusals(self):
        self.refused('the version is a number', 'series', V='two')
        cover = self.top / 'patches/sge/cover'
        for text in ('only a subject\n\nTree: x\n', 'Subject\n\nText\n', 'Subject\nText\n\nTree: x\n',
                     'Subject\n\nText\n\nTree: x\nTree: y\n', 'Subject\n\nText\n\nTree:\n'):
            cover.write_text(text)
            self.refused('patches/sge/cover: not of the form', 'series')
        (self.linux / 'scripts/get_maintainer.pl').unlink()
        cover.write_text('Subject\n\nText\n\nTree: x\nNeeds: fixes\n')
        self.refused('get_maintainer.pl: No such file', 'series')

    def test_too_many(self):
        for n in range(13):
            self.store({f'patches/fixes/{n + 10:04}-x.patch': f'Subject: x {n}\n\n---\nNew file: drivers/x{n}.c\n',
                        f'drivers/x{n}.c': 'x\n'})
        self.refused('patches/fixes has 16 patches, and a part has 15 or fewer', 'series')

    def test_body_that_git_am_cuts(self):
        for line in '---', 'diff --git a/x b/x', 'Index: x', 'From x Mon Sep 17 00:00:00 2001':
            patch = self.top / 'patches/sge/0006-a-empty-file-filled.patch'
            text = patch.read_text()
            patch.write_text(text.replace('back\n', (' ---' if line == '---' else line) + '\n'))
            self.ok('tree')
            self.refused('git am would end the message', 'series')
            patch.write_text(text)


class Stacks(Case):
    """Parts that need some of those before them."""

    def prepare(self):
        super().prepare()
        self.store({'patches/series': 'fix\nother\ncore\nblock\nempty\n'})
        for part, needs in (('fix', ()), ('other', ()), ('core', ['fix']), ('block', ['core']), ('empty', ())):
            self.store({f'patches/{part}/cover': f'{part}: all\n\nText.\n\nTree: {part}\n'
                        + ''.join(f'Needs: {need}\n' for need in needs)})
        for part, line in ('fix', 5), ('other', 30), ('core', 6), ('core', 7), ('block', 20):
            self.commit(f'{part}: line {line}\n\nPart: {part}\n',
                        {'drivers/a.c': self.read('drivers/a.c').replace(f'line {line}\n', f'{line}\n{line}\n'),
                         f'drivers/{part}{line}.h': 'x\n'})
        self.ok('refresh')
        self.ok('tree')

    am = Mails.am

    def test_git_am_on_what_it_needs(self):
        out = self.ok('series')
        self.assertEqual(out, 'out/fix: 1 patch and a cover letter\nout/other: 1 patch and a cover letter\n'
                         'out/core: 2 patches and a cover letter\nout/block: 1 patch and a cover letter\n')
        for part, needs in ('fix', ()), ('other', ()), ('core', ['fix']), ('block', ['fix', 'core']):
            clone = self.am('base', *needs)
            self.git('tag', 'below', cwd=clone)
            # Exactly: git am takes other line numbers, too
            for mail in sorted((self.top / 'out' / part).iterdir())[1:]:
                self.assertNotIn('offset', self.git('apply', '--check', '-v', str(mail), cwd=clone))
                self.git('am', '-q', str(mail), cwd=clone)
            subjects = self.git('log', '--format=%s', '--reverse', 'base..', cwd=clone).split('\n')
            self.assertEqual([line.split(':')[0] for line in subjects],
                             [name for name in [*needs, part] for _ in range(1 + (name == 'core'))])
            cover = next((self.top / 'out' / part).glob('*cover*')).read_text('utf-8')
            self.assertEqual(cover.count('prerequisite-patch-id'), {'core': 1, 'block': 3}.get(part, 0))
        # What has been made is known
        log, program = self.tmp / 'log', self.tmp / 'bin/git'
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\necho "$*" >>{log}\nexec {shutil.which("git")} "$@"\n')
        program.chmod(0o755)
        self.assertEqual(self.ok('series', PATH=f'{program.parent}:{os.environ["PATH"]}'), out)
        self.assertIn(' commit-tree ', log.read_text())
        self.assertNotIn(' apply ', log.read_text())

    def test_need_that_is_not_stated(self):
        cover = self.top / 'patches/core/cover'
        text = cover.read_text()
        cover.write_text(text.replace('Needs: fix', 'Needs: other'))
        self.ok('tree')
        self.refused(r'patches/core/0001-core-line-6.patch does not apply on what the part core needs '
                     r'\(Linux 9.1.3, other\): drivers/a.c:\d+', 'series')
        cover.write_text(text.replace('Needs: fix\n', ''))
        self.refused(r'patches/core/0001-core-line-6.patch does not apply on what the part core needs '
                     r'\(Linux 9.1.3\): drivers/a.c:\d+', 'series')


class Base(unittest.TestCase):
    """harness/tree/base and setup, copied to a repository of nothing else."""

    def setUp(self):
        tmp = tempfile.TemporaryDirectory(prefix='base')
        self.addCleanup(tmp.cleanup)
        self.place(pathlib.Path(tmp.name) / 'top')
        self.src = pathlib.Path(tmp.name) / 'src'
        self.disk_has(9000)
        self.linux(1)

    def place(self, top):
        self.top = top
        (self.top / 'harness/tree').mkdir(parents=True)
        for name in 'base', 'setup', 'apt.sh', 'common.sh', 'packages':
            shutil.copy2(HERE / name, self.top / 'harness/tree')
        (self.top / 'harness/tree/version').write_text('9.1\n')

    def linux(self, patchlevel, sublevel=3, extra=''):
        self.src.mkdir(exist_ok=True)
        (self.src / 'Makefile').write_text(f'# SPDX\nVERSION = 9\nPATCHLEVEL = {patchlevel}\nSUBLEVEL = {sublevel}\n'
                                           f'EXTRAVERSION ={extra}\n')
        (self.src / '.gitignore').write_text('*.o\n')
        (self.src / 'kept.o').write_text('ignored by git, but of the base\n')

    def linux_git(self):
        self.git('init', '-q', cwd=self.src)
        self.git('add', '-A', '-f', cwd=self.src)
        self.git('commit', '-q', '-m', 'x', cwd=self.src)
        return self.git('rev-parse', 'HEAD', cwd=self.src)

    def tarball(self):
        file = self.src.with_name('src.tar.xz')
        subprocess.run(['tar', '-cJf', file, '-C', self.src.parent, 'src'], check=True)
        return file

    def run_base(self, source, command='base', shell=(), **kw):
        env = {k: v for k, v in os.environ.items() if not k.startswith('GIT_')}
        env |= {'LINUX_SRC': str(source), 'PATH': self.path} | kw
        return subprocess.run([*shell, f'harness/tree/{command}'], cwd=self.top, env=env,
                              capture_output=True, text=True, check=False)

    def git(self, *args, cwd=None):
        return subprocess.run(['git', '-c', 'user.name=x', '-c', 'user.email=x@example.org', *args], check=True,
                              cwd=cwd or self.top / 'build/linux', capture_output=True, text=True).stdout.strip()

    def refused(self, message, source, **kw):
        p = self.run_base(source, **kw)
        self.assertRegex(p.stderr, rf'\Aharness: [^\n]*{message}[^\n]*\n\Z')
        self.assertNotEqual(p.returncode, 0)
        self.assertEqual([n for n in os.listdir(self.top / 'build') if n.startswith('linux')], [])

    def made(self, source, version='9.1.3', warning='', **kw):
        p = self.run_base(source, **kw)
        self.assertEqual((p.returncode, p.stderr), (0, warning))
        self.assertEqual(self.git('ls-tree', '--name-only', 'base'), '.gitignore\nMakefile\nkept.o')
        self.assertEqual(self.git('log', '--format=%s %D', 'series'), f'Linux {version} HEAD -> series, tag: base')
        self.assertEqual(self.git('status', '--porcelain'), '')
        commit = self.git('rev-parse', 'base')
        known = self.git('config', '--default', '', '--get', 'harness.commit')
        # And again: nothing to do
        p = self.run_base(source, **kw)
        self.assertEqual((p.returncode, p.stdout, p.stderr), (0, '', ''))
        self.assertEqual(sorted(os.listdir(self.top)), ['build', 'harness'])
        shutil.rmtree(self.top / 'build')
        return commit, known

    def test_sources_give_the_same_base(self):
        tarball = self.tarball()
        commits = {self.made(tarball), self.made(self.src)}
        self.assertEqual([known for _, known in commits], [''])
        head = self.linux_git()
        (self.src / 'scratch').write_text('not committed\n')
        (self.src / 'Makefile').write_text('not committed\n')
        bare = self.src.with_name('bare.git')
        self.git('clone', '-q', '--bare', str(self.src), str(bare), cwd=self.src)
        for source in self.src, bare:
            made = self.made(source)
            self.assertEqual(made, (commits.copy().pop()[0], head))

    def test_another_version(self):
        """What is not of the series' version is tried, with one line."""
        def warning(source, version):
            return f'harness: {source} is Linux {version}, the series is for 9.1.y: trying\n'
        for args, version in (((2, 0, ' -rc1'), '9.2-rc1'), ((0, 7), '9.0.7'), ((1, 0, ' -rc5'), '9.1-rc5'),
                              ((10, 2), '9.10.2')):
            self.linux(*args)
            self.made(self.src, version, warning(self.src, version))
        tarball = self.tarball()
        self.made(tarball, version, warning(tarball, version))
        self.linux_git()
        self.made(self.src, version, warning(self.src, version))
        for args, version in ((1, 0), '9.1'), ((1, 12, ' -rt4'), '9.1.12-rt4'):
            shutil.rmtree(self.src)
            self.linux(*args)
            self.made(self.src, version)

    def test_no_linux(self):
        self.refused('no such file', self.src / 'absent')
        (self.src / 'Makefile').write_text('all:\n')
        self.refused('is no Linux tree', self.src)
        self.refused('is no Linux tree', self.tarball())
        (self.src / '.git').mkdir()
        self.refused('git finds no commit there', self.src)
        (self.src / '.git').rmdir()
        self.linux_git()
        self.refused('is no Linux tree', self.src)
        (self.src / 'Makefile').unlink()
        self.refused('is no Linux tree', self.tarball())

    def test_hostile_environment(self):
        """The same base from another's shell, in a path of 150 characters and more."""
        want = self.made(self.src)
        self.place(self.top / ('x' * 150))
        env = {'CDPATH': f'/tmp:{self.top}', 'GREP_OPTIONS': '-v', 'TAR_OPTIONS': '--exclude=*.o',
               'XZ_OPT': '--nonsense', 'TMPDIR': '/nonexistent', 'SHELLOPTS': 'noclobber',
               'LC_ALL': 'C.UTF-8', 'LANGUAGE': 'de', 'GIT_DIR': '/nonexistent', 'GIT_INDEX_FILE': '/nonexistent',
               'GIT_CONFIG_COUNT': '1', 'GIT_CONFIG_KEY_0': 'core.autocrlf', 'GIT_CONFIG_VALUE_0': 'x',
               'GIT_DEFAULT_HASH': 'sha256'}
        for shell in ('sh', '-c', 'umask 077; exec "$0"'), ('bash',):
            for source in self.tarball(), self.src:
                self.assertEqual(self.made(source, shell=shell, **env), want)

    def test_path_that_kbuild_cannot_take(self):
        self.with_program('apt-get', 'touch "$0.ran"')
        good = self.top
        for name in 'a b', 'a\tb', *(f'a{c}b' for c in ':%$&();<>|`\'"\\'):
            self.place(good / name)
            for command in 'base', 'setup':
                p = self.run_base('', command)
                self.assertRegex(p.stderr, r'\Aharness: Linux cannot be built in a path with [^\n]*\n\Z')
                self.assertNotEqual(p.returncode, 0)
            self.assertEqual(os.listdir(self.top), ['harness'])
        self.assertEqual(sorted(os.listdir(self.src.with_name('bin'))), ['apt-get', 'df'])
        self.place(good / 'ä#,=@+~[1]')
        self.made(self.src)

    def test_broken_tarball(self):
        tarball = self.tarball()
        tarball.write_bytes(tarball.read_bytes()[:-40])
        self.refused('unpacking ', tarball)

    def test_built_tree(self):
        (self.src / '.config').write_text('')
        self.refused('make mrproper', self.src)

    def test_other_source_later(self):
        self.run_base(self.src)
        other = shutil.copytree(self.src, self.src.with_name('other'))
        p = self.run_base(other)
        self.assertRegex(p.stderr, r'\Aharness: [^\n]*was made from [^\n]*\n\Z')
        self.assertEqual(p.returncode, 1)

    def test_disk_full(self):
        self.disk_has(8999)
        self.refused('build/ needs 9000 MiB and has 8999', self.src)

    def disk_has(self, mib):
        self.with_program('df', f'echo header; echo /dev/x 9 9 {mib << 10} 9% /')

    def with_program(self, name, text):
        programs = self.src.with_name('bin')
        programs.mkdir(exist_ok=True)
        (programs / name).write_text('#!/bin/sh\n' + text + '\n')
        (programs / name).chmod(0o755)
        self.path = f'{programs}:{os.environ["PATH"]}'

    def test_broken_download(self):
        self.with_program('apt-get', 'case $* in *indextargets*) echo "Debian|Debian|http://archive.invalid/";;\n'
                          '*download*) echo "E: Hash Sum mismatch" >&2; exit 100;; esac')
        self.with_program('apt-cache', 'exit 0')
        self.with_program('dpkg-deb', 'exit 1')
        if not os.path.exists('/usr/share/keyrings/debian-archive-keyring.gpg'):
            self.skipTest('no Debian archive keyring')
        self.refused('downloading linux-source-9.1: E: Hash Sum mismatch', '')

    def test_package_that_has_gone(self):
        self.with_program('apt-get', 'case $* in *indextargets*) echo "Debian|Debian|http://archive.invalid/";;\n'
                          '*) echo "W: no suite" ;; esac')
        self.with_program('apt-cache', 'echo "N: nothing" >&2; exit 100')
        self.with_program('dpkg-deb', 'exit 1')
        if not os.path.exists('/usr/share/keyrings/debian-archive-keyring.gpg'):
            self.skipTest('no Debian archive keyring')
        self.refused(r"Debian's archive has no linux-source-9.1 \(W: no suite\): LINUX_SRC= names a tree or a tarball", '')

    def test_setup_names_the_command(self):
        """Without root and sudo, what is missing ends in the one command to run."""
        self.with_program('id', 'echo 1000')
        self.with_program('sudo', 'exit 1')
        self.with_program('apt-get', 'touch "$0.ran"')
        self.with_program('dpkg-query', 'echo "installed git"; exit 1')
        (self.top / 'harness/tree/packages').write_text('# list\ngit git # x\nmake make # y\nlibx -\n')
        p = self.run_base(self.src, 'setup')
        self.assertRegex(p.stderr, r'\Aharness: [^\n]*apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=600 make libx\n\Z')
        self.assertNotEqual(p.returncode, 0)
        self.assertFalse((self.src.with_name('bin') / 'apt-get.ran').exists())
        self.with_program('dpkg-query', 'for p in git make libx; do echo "installed $p"; done')
        p = self.run_base(self.src, 'setup')
        self.assertEqual((p.returncode, p.stderr), (0, ''))
        self.assertFalse((self.src.with_name('bin') / 'apt-get.ran').exists())
        self.assertTrue((self.top / 'build/linux/Makefile').exists())


if __name__ == '__main__':
    unittest.main()
