#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""make base, tree, refresh and series, on a fake Linux of a few files."""
import os
import pathlib
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

    def parts(self):
        (self.top / 'patches/series').write_text('# the series\nfixes.cover\nsge.cover\n')
        (self.top / 'patches/fixes.cover').write_text('Fixes\n\nWhat was broken.\n')
        (self.top / 'patches/sge.cover').write_text('SGEs für alle\n\nWhy: größer.\n')

    def odd_commits(self):
        self.commit('a: one\n\nWhy one.\n\nFixes: 012345678901 ("x")\nSigned-off-by: X <x@example.org>\n',
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
        for text in ('', '# nothing yet\n', 'fixes.cover\nsge.cover\n'):
            self.parts()
            (self.top / 'patches/series').write_text(text)
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
        self.assertEqual([p.name for p in (self.top / 'patches').glob('*.patch')], ['0001-a-one.patch'])
        self.assertEqual(os.listdir(self.top / 'drivers'), ['mine.txt'])
        self.ok('tree')

    def test_parts(self):
        self.parts()
        self.commit('fix: one', {'drivers/a.c': 'a\n'})
        self.commit('fix: two', {'drivers/a.c': 'b\n'})
        self.commit('sge: one', {'drivers/sge.c': 'a\n'})
        self.ok('refresh')
        series = self.top / 'patches/series'
        self.assertEqual(series.read_text(), '# the series\nfixes.cover\n0001-fix-one.patch\n0002-fix-two.patch\n'
                         '0003-sge-one.patch\n    drivers/sge.c\nsge.cover\n')
        want = ('# the series\nfixes.cover\n0001-fix-one.patch\n0002-fix-two.patch\n# then\nsge.cover\n'
                '# the API\n0003-sge-one.patch\n    drivers/sge.c\n')
        series.write_text(want)
        self.ok('tree')
        self.commit('sge: two', {'drivers/a.c': 'c\n'})
        self.ok('refresh')
        self.assertEqual(series.read_text(), want + '0004-sge-two.patch\n')
        # A new commit between the fixes stays among them
        self.git('reset', '-q', '--hard', 'HEAD~2')
        self.commit('fix: three', {'drivers/b.c': 'c\n'})
        self.commit('sge: one', {'drivers/sge.c': 'a\n'})
        self.ok('refresh')
        self.assertEqual(series.read_text(), want.replace('# then', '0003-fix-three.patch\n    drivers/b.c\n# then')
                         .replace('0003-sge', '0004-sge'))
        self.git('reset', '-q', '--hard', 'base')
        self.commit('sge: one', {'drivers/sge.c': 'a\n'})
        self.commit('fix: one', {'drivers/a.c': 'a\n'})
        self.refused('"fix: one".* of the part fixes but comes after', 'refresh')


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
        with (self.top / 'patches/series').open('a') as f:
            f.write('    drivers/three.c\n')
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
        patch = self.top / 'patches/0001-a-one.patch'
        text = patch.read_text()
        patch.write_text(text.replace(' line 8', ' line eight'))
        self.refused('patches/0001-a-one.patch does not apply: drivers/a.c:7', 'tree')
        patch.write_text(text.replace('drivers/a.c', 'drivers/absent.c'))
        self.refused('patches/0001-a-one.patch does not apply: drivers/absent.c', 'tree')
        patch.write_text(text[:-20])
        self.refused('patches/0001-a-one.patch does not apply: ', 'tree')
        patch.write_text(text)
        self.ok('tree')

    def test_series_file(self):
        series = self.top / 'patches/series'
        text = series.read_text()
        for line, why in (('0009-x.patch', '0009-x.patch: no such file'), ('x.cover', 'x.cover: no such file'),
                          ('    drivers/x.c', 'drivers/x.c: no such file'), ('0001-a-one.patch', 'listed twice'),
                          ('    drivers/two.c', 'listed twice'), ('series', 'neither')):
            series.write_text(text + line + '\n')
            self.refused(why, 'tree')
            self.refused(why, 'refresh')
        series.write_text('0001-a-one.patch\nfixes.cover\n')
        self.refused('before the first part', 'tree')
        series.write_text('    drivers/two.c\n')
        self.refused('before the first patch', 'tree')
        (self.top / 'drivers/a.c').write_text('x\n')
        series.write_text(text + '    drivers/a.c\n')
        self.refused('drivers/a.c is listed as a new file, but Linux has it', 'tree')

    def test_patch_file(self):
        patch = self.top / 'patches/0001-a-one.patch'
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
        series = self.top / 'patches/series'
        lines = [line for line in series.read_text().splitlines() if line != 'sge.cover']
        lines.insert(lines.index('0004-a-gone.patch'), 'sge.cover')
        series.write_text('\n'.join(lines) + '\n')
        self.ok('tree')

    def test_git_am_gives_the_tree(self):
        self.ok('series')
        fixes, sge = (sorted((self.top / 'out' / part).iterdir()) for part in ('fixes', 'sge'))
        self.assertEqual((len(fixes), len(sge)), (4, 4))
        clone = self.tmp / 'clone'
        self.git('clone', '-q', '-b', 'base', str(self.linux), str(clone), cwd=self.tmp)
        for mails in fixes, sge:
            self.git('am', '-q', *map(str, mails[1:]), cwd=clone)
        self.assertEqual(self.git('log', '--format=%T', 'base..', cwd=clone), self.git('log', '--format=%T', 'base..'))
        self.assertEqual(set(self.git('log', '--format=%an %ae', 'base..', cwd=clone).split('\n')),
                         {'Test Er tester@example.org'})
        self.assertRegex(self.git('log', '-1', '--format=%B', 'HEAD~5', cwd=clone),
                         r'\nFixes: 012345678901 \("x"\)\nSigned-off-by: Test Er <tester@example.org>\Z')
        self.assertEqual(self.git('log', '--format=%s', 'base..', cwd=clone), self.git('log', '--format=%s', 'base..'))

    def test_headers(self):
        self.ok('series', V='2')
        mails = sorted((self.top / 'out/sge').iterdir())
        self.assertEqual([m.name[:8] for m in mails], [f'v2-000{n}-' for n in range(4)])
        for mail in mails:
            head = mail.read_text().partition('\n\n')[0]
            self.assertRegex(head, r'\[PATCH v2 \d/3\]')
            self.assertIn('\nTo: Ann Maintainer <ann@example.org>', head)
            self.assertIn('\nCc: =?utf-8?', head)
            self.assertIn('<zoe@example.org>,\n    list@example.org', head)
        cover = mails[0].read_text()
        self.assertIn('\n\nWhy: größer.\n\nTest Er (3):\n', cover)
        self.assertIn('Content-Transfer-Encoding: 8bit', cover.partition('\n\n')[0])
        self.assertIn('=?utf-8?', cover.partition('Subject:')[2].partition('\n')[0])
        self.assertRegex(cover, r'\n 5 files changed, ')
        self.assertNotIn('***', cover)
        self.assertRegex(cover, 'base-commit: ' + self.git('rev-parse', 'base'))
        reply = '\nIn-Reply-To: ' + cover.partition('Message-Id: ')[2].partition('\n')[0]
        self.assertIn(reply.lower(), mails[1].read_text().lower())

    def test_no_identity(self):
        (self.tmp / 'gitconfig').write_text('')
        self.refused('no identity', 'series', EMAIL='x@example.org')

    def test_refusals(self):
        self.refused('the version is a number', 'series', V='two')
        cover = self.top / 'patches/sge.cover'
        cover.write_text('only a subject\n')
        self.refused('patches/sge.cover: not of the form', 'series')
        (self.linux / 'scripts/get_maintainer.pl').unlink()
        cover.write_text('Subject\n\nText\n')
        self.refused('get_maintainer.pl: No such file', 'series')

    def test_body_that_git_am_cuts(self):
        for line in '---', 'diff --git a/x b/x', 'Index: x', 'From x Mon Sep 17 00:00:00 2001':
            patch = self.top / 'patches/0006-a-empty-file-filled.patch'
            text = patch.read_text()
            patch.write_text(text.replace('back\n', (' ---' if line == '---' else line) + '\n'))
            self.ok('tree')
            self.refused('git am would end the message', 'series')
            patch.write_text(text)


class Base(unittest.TestCase):
    """harness/tree/base and setup, copied to a repository of nothing else."""

    def setUp(self):
        tmp = tempfile.TemporaryDirectory(prefix='base')
        self.addCleanup(tmp.cleanup)
        self.place(pathlib.Path(tmp.name) / 'top')
        self.src = pathlib.Path(tmp.name) / 'src'
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

    def run_base(self, source, command='base', shell=(), **env):
        env = {k: v for k, v in os.environ.items() if not k.startswith('GIT_')} | {'LINUX_SRC': str(source)} | env
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
                p = self.run_base('', command, PATH=self.path)
                self.assertRegex(p.stderr, r'\Aharness: Linux cannot be built in a path with [^\n]*\n\Z')
                self.assertNotEqual(p.returncode, 0)
            self.assertEqual(os.listdir(self.top), ['harness'])
        self.assertEqual(os.listdir(self.src.with_name('bin')), ['apt-get'])
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
        self.with_program('df', 'echo header; echo /dev/x 9 9 2048000 9% /')
        self.refused('needs 5000 MiB for the base and has 2000', self.src, PATH=self.path)

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
        self.refused('downloading linux-source-9.1: E: Hash Sum mismatch', '', PATH=self.path)

    def test_package_that_has_gone(self):
        self.with_program('apt-get', 'case $* in *indextargets*) echo "Debian|Debian|http://archive.invalid/";;\n'
                          '*) echo "W: no suite" ;; esac')
        self.with_program('apt-cache', 'echo "N: nothing" >&2; exit 100')
        self.with_program('dpkg-deb', 'exit 1')
        if not os.path.exists('/usr/share/keyrings/debian-archive-keyring.gpg'):
            self.skipTest('no Debian archive keyring')
        self.refused(r"Debian's archive has no linux-source-9.1 \(W: no suite\): LINUX_SRC= names a tree or a tarball",
                     '', PATH=self.path)

    def test_setup_names_the_command(self):
        """Without root and sudo, what is missing ends in the one command to run."""
        self.with_program('id', 'echo 1000')
        self.with_program('sudo', 'exit 1')
        self.with_program('apt-get', 'touch "$0.ran"')
        self.with_program('dpkg-query', 'echo "installed git"; exit 1')
        (self.top / 'harness/tree/packages').write_text('# list\ngit git # x\nmake make # y\nlibx -\n')
        p = self.run_base(self.src, 'setup', PATH=self.path)
        self.assertRegex(p.stderr, r'\Aharness: [^\n]*apt-get install -y --no-install-recommends make libx\n\Z')
        self.assertNotEqual(p.returncode, 0)
        self.assertFalse((self.src.with_name('bin') / 'apt-get.ran').exists())
        self.with_program('dpkg-query', 'for p in git make libx; do echo "installed $p"; done')
        p = self.run_base(self.src, 'setup', PATH=self.path)
        self.assertEqual((p.returncode, p.stderr), (0, ''))
        self.assertFalse((self.src.with_name('bin') / 'apt-get.ran').exists())
        self.assertTrue((self.top / 'build/linux/Makefile').exists())


if __name__ == '__main__':
    unittest.main()
