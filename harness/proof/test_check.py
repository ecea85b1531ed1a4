#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""check.py on a toy tree whose Makefile and scripts stand in for Linux's."""
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from proof import check  # noqa: E402

# UML compiles core/, x86 compiles hw/, neither compiles odd/. An object lands
# under $(O); SPARSE in a source is what sparse would say, BROKEN breaks it.
# Cross compilers compile both, and by no other than clang what is of x86 only.
MAKEFILE = r"""
MAKEFLAGS += -r
dirs := $(if $(filter um,$(ARCH)),core,hw drivers) $(shell cat $(O)/.config | grep -x odd)
cross := $(filter-out gcc,$(lastword $(CC)))
objs := $(patsubst %.c,%.o,$(if $(cross),\
	$(shell find core hw drivers -name '*.c' $(if $(filter x86_64,$(ARCH)),,! -path '*/hfi1/*')),\
	$(shell find $(dirs) -name '*.c')))
all: $(objs)
	@test $(ARCH) = x86_64 || test -f core/a.c || test -f $(O)/core/a.o || \
		{ echo "core/a.c: error: gone" >&2; exit 1; }
$(objs): %.o: %.c FORCE
	@if grep -q BROKEN $<; then echo "../other.h:7:1: error: BROKEN" >&2; exit 1; fi
	@mkdir -p $(dir $(O)/$@) && $(if $(cross),{ test -f $(O)/$@ || \
		$(CC) $(if $(W),-Wextra) -o $(O)/$@ ../$<; },cp $< $(O)/$@)
	@$(if $(C),grep -n SPARSE $< | sed 's|\([0-9]*\):.*SPARSE|../$<:\1:9: warning:|' >&2; true)
drivers/infiniband/%/: FORCE
	@if grep -rq BROKEN include; then echo "include: error: BROKEN header" >&2; exit 1; fi
allmodconfig:
	@grep -v -e =n -e "$$(cat lost 2>/dev/null || echo nothing)" $(O)/$(KCONFIG_ALLCONFIG) >$(O)/.config
prepare:
	@if test -e unprepared; then echo "fixdep: error: unprepared" >&2; exit 1; fi
htmldocs:
	@out=$(O)/Documentation/output/$(SPHINXDIRS) && mkdir -p $$out && \
	for f in Documentation/$(SPHINXDIRS)/*.rst; do \
		grep -H WARN $$f | sed 's/^/WARNING: /' >&2; \
		grep -q ORPHAN $$f || touch $$out/$$(basename $$f .rst).html; done
FORCE:
"""
FILES = {
    "Makefile": MAKEFILE,
    "Kconfig": "",
    "core/a.c": "int a;\n// SPARSE old message\n",
    "hw/b.c": "int b;\n",
    "odd/c.c": "int c;\n",
    "include/h.h": "\n",
    "include/linux/compiler-version.h": "\n",
    "include/linux/kconfig.h": "\n",
    "Documentation/x/index.rst": "index\n",
    "scripts/checkpatch.pl": """
        undef $/; my $m = <STDIN>; my ($from) = $m =~ /^From: (.*)$/m; my $bad = 0;
        sub bad { print "-:3: ERROR:$_[0]\\n"; $bad = 1 }
        bad("SIGN: no sign-off") unless $m =~ /^Signed-off-by: \\Q$from\\E\\n---$/m;
        bad("STYLE: it says BAD") if $m =~ /^\\+.*BAD/m;
        exit $bad;
        """,
    "scripts/get_maintainer.pl": """
        print $ARGV[-1] =~ /stray/ ? "" : "INFINIBAND SUBSYSTEM\\nM:\\tx\\n\\n", "THE REST\\nM:\\tx\\n";
        """,
    "scripts/kernel-doc": """\
        #!/bin/sh
        shift 3
        grep -n DOC "$@" /dev/null | sed 's/^/Warning: /; s/:\\([0-9]*\\):/:\\1 /'
        """,
    "scripts/coccinelle/bad.cocci": """
        virtual report
        @r depends on report@
        position p;
        @@
        * bad@p(...)
        @script:python depends on report@
        p << r.p;
        @@
        coccilib.report.print_report(p[0], "WARNING: a bad call")
        """,
}
# Each of CROSS, by its name: NOISE is what it warns of, with -Wextra.
COMPILER = """\
    #!/bin/sh
    echo "${0##*/} LANG=$LANG KCFLAGS=$KCFLAGS LLVM=$LLVM $*" >>"${0%/*}/../compiled"
    case $* in *--version) cat "${0%/*}/../version"; exit;; esac
    src=${4#../}
    test -e "$src" || exit 1
    if [ "$1" = -Wextra ]; then
        grep -n NOISE "$src" | sed "s|\\([0-9]*\\):.*NOISE|../$src:\\1:9: warning:|" >&2
        grep -n "ONLY${0##*/}" "$src" | sed "s|\\([0-9]*\\):.*ONLY|../$src:\\1:9: warning: by |" >&2
        grep -n INLINED "$src" | sed "s|.*|../include/linux/string.h:7:9: warning: overread|" >&2
    fi
    ! grep -n "ERROR${0##*/}" "$src" | sed "s|.*|../$src:1:1: error: by ${0##*/}|" | grep . >&2 || exit 1
    cp "$src" "$3"
    """
KERNEL = """\
    #!/usr/bin/env python3
    import pathlib, sys
    build = pathlib.Path(sys.argv[4], "build-" + sys.argv[2])
    build.mkdir(exist_ok=True)
    if not (build / ".config").exists():
        kconfig = pathlib.Path(sys.argv[4], "Kconfig").read_text()
        (build / ".config").write_text("CONFIG_WERROR=y\\n" + kconfig)
    """


class Pure(unittest.TestCase):
    def test_messages_forget_lines_of_any_tool(self):
        for line, key in (
                ("../a/b.c:12:3: warning: w", ("a/b.c", "warning: w")),
                ("Warning: a/b.c:12 no 'x'", ("a/b.c", "no 'x'")),
                ("a/b.c:1:2-7: WARNING: freed on line 12", ("a/b.c", "WARNING: freed on line"))):
            self.assertEqual(check.messages(line, {"a/b.c"}), {key: [line]})
        self.assertEqual(check.messages("a/c.c:1:1: warning: w\n  CC a/b.o", {"a/b.c"}), {})

    def test_new_messages_counts(self):
        old = check.messages("f.c:1:1: w", {"f.c"})
        moved = check.messages("f.c:9:1: w", {"f.c"})
        twice = check.messages("f.c:1:1: w\nf.c:9:1: w", {"f.c"})
        self.assertEqual(check.new_messages(old, moved), [])
        self.assertEqual(check.new_messages({}, moved), ["f.c:9:1: w"])
        self.assertEqual(check.new_messages(old, twice), ["f.c:9:1: w (1 before, 2 now)"])
        self.assertEqual(check.new_messages(twice, old), [])

    def test_first_error(self):
        out = "  CC a.o\na.c:1: warning: w\na.c:2:1: error: e\nmake[1]: *** [x] Error 1\nmake: *** Error 2\n"
        self.assertEqual(check.first_error(out), "a.c:2:1: error: e")
        out = "ERROR: modpost: \"f\" [m.ko] undefined!\nmake[1]: *** [x] Error 1\n"
        self.assertEqual(check.first_error(out), out.splitlines()[0])
        self.assertEqual(check.first_error("words\nmake: *** [x] Error 1"), "make: *** [x] Error 1")
        self.assertEqual(check.first_error("\n"), "failed without a word")

    def test_warnings_of_a_counted_assertion(self):
        line = "a.h:1:1: error: call to '__compiletime_assert_%d' declared with attribute error: x\n"
        self.assertEqual(check.new_messages(check.warnings(line % 7), check.warnings(line % 9)), [])

    def test_uncompiled(self):
        out = "make[3]: *** No rule to make target 'd/a.o'.  Stop.\nd/b.c:1: error: e\n"
        self.assertEqual(check.uncompiled(out), {"d/a.o"})

    def test_series_words(self):
        self.assertEqual(check.series_words("# c\nfixes\n\nsge # x\n"), ["fixes", "sge"])

    def test_new_files(self):
        text = "Subject: x\n\nNew file: no\n\n---\nNew file: a/b.c\nNew file: a/c.c\ndiff --git a/x b/x\n+New file: no\n"
        self.assertEqual(check.new_files(text), ["a/b.c", "a/c.c"])


class Toy(unittest.TestCase):
    def setUp(self):
        self.top = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.top)
        self.tree = self.top / "build/linux"
        self.write(self.top, {"harness/guests/kernel.py": KERNEL, "harness/guests/configs/x.config": "X=y\n",
                              "harness/proof/sparse": "#!/bin/sh\necho /bin/true\n",
                              "harness/guests/guest.py": "#!/bin/sh\n",
                              ".gitignore": "build/\n", "patches/series": ""})
        shutil.copy(check.__file__, self.top / "harness/proof")
        shutil.copy(check.alone.__file__, self.top / "harness/guests")
        self.bin = self.top / "build/bin"
        self.write(self.bin, {"ccache": "#!/bin/sh\nexec \"$@\"\n", "../version": "1\n"} |
                   {compiler: COMPILER for _, compiler, _ in check.CROSS.values()})
        self.git("init", "-q", cwd=self.top)
        self.tree.mkdir(parents=True)
        self.git("init", "-q", "-b", "series")
        (self.tree / ".git/info/exclude").write_text("/build-*/\n")
        self.commit("base", FILES)
        self.git("tag", "base")

    def write(self, top, files):
        for name, text in files.items():
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text if name == "Makefile" else textwrap.dedent(text))
            path.chmod(0o755 if text.lstrip().startswith("#!") else 0o644)

    def git(self, *args, cwd=None):
        env = check.ENV | {f"GIT_{who}_{what}": "toy@example.org"
                           for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        subprocess.run(["git", *args], cwd=cwd or self.tree, env=env, check=True)

    def commit(self, subject, files):
        self.write(self.tree, files)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", subject, "-m", "Fixes: 0123456789ab (\"x\")")

    def check(self, *args, status, path=None, **env):
        path = path or f"{self.bin}:{os.environ['PATH']}"
        done = subprocess.run([self.top / "harness/proof/check.py", *args], text=True, cwd="/",
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env=os.environ | env | {"PATH": path})
        self.assertEqual(done.returncode, status, done.stdout)
        self.assertNotIn("Traceback", done.stdout)
        return done.stdout

    def test_empty_series_and_summary(self):
        out = self.check(status=0)
        self.assertEqual(out.splitlines()[-1], "1 passed, 0 failed, 7 skipped")

    def test_good_series(self):
        self.commit("one", {"core/new.c": "/** fine */\nint n;\n"})
        self.commit("two", {"hw/b.c": "int b2;\n", "Documentation/x/p.rst": "p\n"})
        out = self.check(status=0)
        self.assertEqual(out.splitlines()[-1], "8 passed, 0 failed, 0 skipped")

    def test_one_failure_does_not_stop_the_rest(self):
        self.commit("one", {"core/a.c": "int BAD; // SPARSE new message\n"})
        out = self.check("checkpatch", "sparse", "builds", status=1)
        self.assertEqual(out.splitlines()[-1], "1 passed, 2 failed, 0 skipped")

    def test_refusals(self):
        def refused(line, *args):
            out = self.check(*args, status=1)
            self.assertEqual(out.count("\n"), 1)
            self.assertIn(line, out)
            self.assertTrue(out.startswith("harness: "))
        refused("no step nonsense", "nonsense")
        refused("is not there: run make tree", "--tree", self.top / "nowhere")
        (self.tree / "core/a.c").write_text("int changed;\n")
        refused("has uncommitted changes")
        self.git("checkout", "-q", ".")
        self.git("update-ref", "-d", "refs/tags/base")
        refused("no tag base")

    def test_checkpatch(self):
        self.commit("fine", {"core/a.c": "int a2;\n"})
        self.assertIn("1 commits", self.check("checkpatch", status=0))
        self.commit("awful", {"core/a.c": "int BAD;\n"})
        out = self.check("checkpatch", status=1)
        self.assertIn("awful: ERROR:STYLE: it says BAD", out)
        self.assertNotIn("SIGN", out)
        self.assertNotIn("fine:", out)

    def test_new_file_without_maintainer(self):
        self.commit("one", {"core/stray.c": "int s;\n"})
        self.assertIn("core/stray.c: no section of MAINTAINERS", self.check("checkpatch", status=1))

    def test_checkpatch_that_dies(self):
        self.commit("one", {"scripts/checkpatch.pl": "die 'no perl today';\n"})
        self.assertIn("no perl today", self.check("checkpatch", status=1))

    def test_sparse(self):
        self.commit("one", {"core/a.c": "int a;\nint moved;\n// SPARSE old message\n"})
        self.check("sparse", status=0)
        self.commit("two", {"hw/b.c": "int b;\n// SPARSE new message\n"})
        out = self.check("sparse", status=1)
        self.assertIn("../hw/b.c:2:9: warning: new message", out)
        self.assertNotIn("old message", out)
        again = self.check("sparse", status=1)
        self.assertIn("../hw/b.c:2:9: warning: new message", again)
        self.assertNotIn("linux, uml", again)  # it was remembered

    def test_sparse_wants_each_file_compiled(self):
        self.commit("one", {"odd/c.c": "int c2;\n"})
        self.assertIn("odd/c.c: compiled by neither configuration", self.check("sparse", status=1))

    def test_sparse_does_not_take_a_broken_build_for_silence(self):
        self.commit("one", {"core/a.c": "BROKEN\n", "hw/b.c": "int b2;\n"})
        out = self.check("sparse", status=1)
        self.assertIn("linux: ../other.h:7:1: error: BROKEN", out)
        self.assertEqual(out.splitlines()[-1], "0 passed, 1 failed, 0 skipped")

    def compiled(self):
        """What the cross compilers were asked for since the last call, --version aside."""
        log = self.top / "build/compiled"
        lines = [line for line in log.read_text().splitlines() if "--version" not in line]
        log.write_text("")
        return lines

    def test_cross(self):
        self.commit("old", {"core/a.c": "int a;\n// NOISE old message\n"})
        self.git("update-ref", "refs/tags/base", "HEAD")
        self.commit("one", {"core/a.c": "int a;\nint moved;\n// NOISE old message\n",
                            "drivers/infiniband/hw/hfi1/h.c": "int h;\n"})
        out = self.check("cross", status=0)
        self.assertIn("2 files: arm64-64k 1, s390 1, arm-lpae 1, x86-clang 2", out)
        self.assertEqual(len(self.compiled()), 5 + 4)
        self.commit("two", {"hw/b.c": "int b;\n// NOISE new message\n",
                            "drivers/d.c": "int d;\n// ONLYclang-19\n"})
        out = self.check("cross", status=1)
        self.assertIn("../hw/b.c:2:9: warning: new message (arm64-64k, s390, arm-lpae, x86-clang)\n", out)
        self.assertIn("../drivers/d.c:2:9: warning: by clang-19 (x86-clang)\n", out)
        self.assertEqual(out.count("warning"), 2)

    def test_cross_warning_from_a_header(self):
        self.commit("one", {"core/a.c": "int a; // INLINED\n", "hw/b.c": "int b; // INLINED\n"})
        out = self.check("cross", status=1)
        self.assertEqual(out.count("    ../include/linux/string.h:7:9: warning: overread"), 1)
        self.git("update-ref", "refs/tags/base", "HEAD")
        self.commit("two", {"core/a.c": "int a2; // INLINED\n", "core/new.c": "int n; // INLINED\n"})
        self.check("cross", status=0)

    def test_cross_looks_once(self):
        self.commit("zero", {"hw/b.c": "int b0;\n"})
        self.check("cross", status=0)
        self.assertEqual(len(self.compiled()), 4)  # nothing to compare with base
        self.commit("one", {"hw/b.c": "int b;\n// NOISE new message\n"})
        for calls in (8, 0):
            self.assertIn("warning: new message", self.check("cross", status=1))
            self.assertEqual(len(self.compiled()), calls)
            # what no compiler sees may change
            self.commit("two", {"tools/testing/a.sh": f"echo {calls}\n"})
        self.write(self.top, {"build/version": "2\n"})
        self.check("cross", status=1)
        self.assertEqual(len(self.compiled()), 8)

    def test_cross_speaks_of_objects_that_are_there(self):
        """An interrupted run leaves objects, of which make has nothing to say any more."""
        self.commit("one", {"hw/b.c": "int b;\n// NOISE new message\n"})
        self.check("cross", status=1)
        shutil.rmtree(self.top / "build/check")
        self.assertIn("warning: new message", self.check("cross", status=1))

    def test_cross_wants_each_file_compiled(self):
        self.commit("one", {"odd/c.c": "int c2;\n"})
        for _ in range(2):
            self.assertIn("odd/c.c: Kconfig leaves it out (arm64-64k, s390, arm-lpae, x86-clang)",
                          self.check("cross", status=1))

    def test_cross_does_not_compile(self):
        self.commit("one", {"core/a.c": "BROKEN\n", "hw/b.c": "int b2;\n"})
        for calls in (12, 4):  # it may be the machine's fault, and is not remembered
            out = self.check("cross", status=1)
            self.assertEqual(len(self.compiled()), calls)
            self.assertIn("core/a.c: does not compile (arm64-64k, s390, arm-lpae, x86-clang)", out)
            self.assertIn("    ../other.h:7:1: error: BROKEN (arm64-64k, ", out)
            self.assertNotIn("b.c", out)
    def test_cross_does_not_compile_in_base_either(self):
        self.commit("old", {"core/a.c": "ERRORs390x-linux-gnu-gcc\n"})
        self.git("update-ref", "refs/tags/base", "HEAD")
        self.commit("one", {"core/a.c": "ERRORs390x-linux-gnu-gcc\nint a;\n"})
        self.assertIn("1 files: arm64-64k 1, s390 0 (1 broken, as in base), ", self.check("cross", status=0))
        self.commit("two", {"hw/b.c": "int b3; // NOISE new message\n"})
        out = self.check("cross", status=1)
        self.assertNotIn("a.c", out)
        self.assertIn("warning: new message", out)
        self.git("update-ref", "refs/tags/base", "HEAD")
        self.commit("old", {"core/a.c": "BROKEN\n"})
        self.git("update-ref", "refs/tags/base", "HEAD")
        self.commit("one", {"core/a.c": "BROKEN still\n"})
        self.assertIn("core/a.c: no configuration compiles it", self.check("cross", status=1))

    def test_cross_wants_its_configuration(self):
        self.commit("one", {"core/a.c": "int a2;\n", "lost": "64K_PAGES"})
        out = self.check("cross", status=1)
        self.assertIn("linux: Kconfig does not take CONFIG_ARM64_64K_PAGES=y (arm64-64k)", out)
        self.assertEqual(out.count("\n    "), 1)
        self.commit("two", {"lost": "nothing", "unprepared": ""})
        self.assertIn("linux: fixdep: error: unprepared (arm64-64k, s390, arm-lpae, x86-clang)", self.check("cross", status=1))

    def test_cross_takes_nothing_from_the_environment(self):
        self.commit("one", {"core/a.c": "int a2;\n"})
        self.check("cross", status=0, ARCH="um", CROSS_COMPILE="x-", LLVM="1", MAKEFLAGS="n", CC="false",
                   KCFLAGS="-w", LANG="de_DE.UTF-8", W="", KCONFIG_ALLCONFIG="/dev/null", O="elsewhere")
        self.assertEqual(sorted(self.compiled()), sorted(
            f"{compiler} LANG= KCFLAGS= LLVM={'-19' if 'clang' in compiler else ''} "
            f"-Wextra -o build-{name}/core/a.o ../core/a.c"
            for name, (_, compiler, _) in check.CROSS.items()))

    def test_kernel_doc(self):
        self.commit("one", {"core/new.c": "/** fine */\nint n;\n"})
        self.check("kernel-doc", status=0)
        self.commit("two", {"core/new.c": "/** DOC missing */\nint n;\n"})
        self.assertIn("core/new.c:1 ", self.check("kernel-doc", status=1))

    def test_htmldocs(self):
        self.commit("one", {"Documentation/x/p.rst": "p\n"})
        for _ in range(2):
            self.check("htmldocs", status=0)
        self.commit("two", {"Documentation/x/p.rst": "WARN\n"})
        for _ in range(2):
            self.assertIn("Documentation/x/p.rst:WARN", self.check("htmldocs", status=1))
        self.commit("three", {"Documentation/x/p.rst": "ORPHAN\n"})
        self.assertIn("no p.html came out", self.check("htmldocs", status=1))

    def test_coccicheck(self):
        self.commit("one", {"core/a.c": "int f(void)\n{\n\treturn good();\n}\n"})
        self.check("coccicheck", status=0)
        self.commit("two", {"core/a.c": "int f(void)\n{\n\treturn bad();\n}\n"})
        for _ in range(2):
            self.assertIn("core/a.c:3:8-11: WARNING: a bad call", self.check("coccicheck", status=1))
        self.git("update-ref", "refs/tags/base", "HEAD")
        self.commit("three", {"core/a.c": "int f(void)\n{\n\n\treturn bad();\n}\n"})
        self.check("coccicheck", status=0)

    def test_coccicheck_with_a_broken_semantic_patch(self):
        self.commit("one", {"core/a.c": "int a2;\n",
                            "scripts/coccinelle/bad.cocci": "virtual report\n@@ nonsense\n"})
        self.assertIn("bad.cocci: ", self.check("coccicheck", status=1))

    def test_coccicheck_does_not_take_an_exception_for_silence(self):
        self.commit("one", {"core/a.c": "int f(void)\n{\n\treturn bad();\n}\n"})
        self.git("rm", "-q", "include/linux/kconfig.h")
        self.git("commit", "-q", "-m", "two")
        self.assertIn("kconfig.h", self.check("coccicheck", status=1))

    def test_builds_each_commit_once(self):
        self.commit("one", {"core/a.c": "int a2;\n"})
        self.commit("two", {"core/a.c": "BROKEN\n"})
        self.commit("three", {"core/a.c": "int a3;\n"})
        for now in (3, 1):
            out = self.check("builds", status=1)
            self.assertIn(f"3 commits, {now} built now", out)
            self.assertIn("two: ../other.h:7:1: error: BROKEN (build/check/builds-0002.log)", out)
            self.assertEqual(out.count("error:"), 1)
        self.assertIn("BROKEN", (self.top / "build/check/builds-0002.log").read_text())
        self.git("reset", "-q", "--hard", "HEAD~2")
        self.assertIn("1 commits, 0 built now", self.check("builds", status=0))
        (self.top / "harness/guests/configs/x.config").write_text("X=n\n")
        self.assertIn("1 commits, 1 built now", self.check("builds", status=0))

    def test_builds_see_a_source_go(self):
        self.commit("one", {"core/a.c": "int a2;\n"})
        self.git("rm", "-q", "core/a.c")
        self.git("commit", "-q", "-m", "two")
        self.assertIn("two: core/a.c: error: gone", self.check("builds", status=1))

    def test_builds_what_only_x86_compiles(self):
        self.commit("one", {"hw/b.c": "BROKEN\n"})
        self.assertIn("one: ../other.h:7:1: error: BROKEN", self.check("builds", status=1))
        self.commit("two", {"hw/b.c": "int b;\n", "odd/c.c": "int c2;\n"})
        self.assertIn("two: odd/c.c is compiled by neither", self.check("builds", status=1))
        self.commit("three", {"include/h.h": "BROKEN\n"})
        self.assertIn("three: include: error: BROKEN header", self.check("builds", status=1))

    def test_builds_configure_again_for_kconfig(self):
        self.commit("one", {"hw/b.c": "int b2;\n"})
        self.commit("two", {"Kconfig": "odd\n", "odd/c.c": "int c2;\n"})
        self.check("builds", status=0)

    def test_boots_what_touches_a_driver(self):
        self.write(self.top, {"harness/guests/guest.py": "#!/bin/sh\n"
                              "grep -q 'int b2' $2/drivers/d.c || exit 0\n"
                              "echo harness: splat: oops; exit 1\n"})
        self.commit("one", {"drivers/d.c": "int b;\n"})
        self.commit("two", {"drivers/d.c": "int b2;\n"})
        self.commit("three", {"core/a.c": "int a2;\n"})
        out = self.check("builds", status=1)
        self.assertIn("two: in the guest: splat: oops", out)
        self.assertEqual(out.count("in the guest"), 1)

    def test_builds_want_werror(self):
        self.write(self.top, {"harness/guests/kernel.py": KERNEL.replace("WERROR=y", "WERROR=n")})
        self.commit("one", {"core/a.c": "int a2;\n"})
        self.assertIn("no CONFIG_WERROR=y", self.check("builds", status=1))

    def test_scripts(self):
        patch = "Subject: x\n\n---\nNew file: core/none.c\n"
        self.write(self.top, {"patches/series": "a\n", "patches/a/1.patch": patch, "core/none.c": "x", "patches/a/cover": "x",
                              "good.sh": "#!/bin/sh\ntrue\n"})
        self.check("scripts", status=0)
        (self.top / "core/none.c").unlink()
        self.write(self.top, {"patches/series": "a\nb\n", "patches/c/2.patch": patch, "patches/3.patch": patch,
                              "bad": "#!/bin/sh\necho $1\n", "bad.py": "def :\n"})
        out = self.check("scripts", status=1)
        for words in ("there is no patches/b/cover", "patches/a/1.patch: core/none.c does not exist", "bad.py:1: ",
                      "patches/c/2.patch is in no part that patches/series names",
                      "patches/3.patch is in no part that patches/series names", "SC2086"):
            self.assertIn(words, out)

    def test_missing_tool(self):
        tools = self.top / "tools"
        tools.mkdir()
        for tool in ("git", "python3", "env"):
            (tools / tool).symlink_to(shutil.which(tool))
        self.commit("one", {"core/a.c": "int a2;\n"})
        self.assertIn("spatch is not installed", self.check("coccicheck", status=1, path=str(tools)))


if __name__ == "__main__":
    unittest.main()
