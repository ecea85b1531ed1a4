# SPDX-License-Identifier: GPL-2.0
# LINUX_SRC=tree or tarball (base)  ACCEL=kvm (x86 guest)  V=2 (series)  AGAIN=1 (test)
export LINUX_SRC ACCEL V AGAIN
# whatever the locale: a text is UTF-8
export PYTHONUTF8 = 1

.DEFAULT_GOAL := help
.PHONY: help setup tree refresh series demo test check bench guest-uml guest-x86 clean

help:
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

setup: ## install the missing packages, fetch Linux (LINUX_SRC= names a tree or tarball)
	@harness/tree/setup
tree: setup ## build/linux: the base plus one commit for each patch
	@harness/tree/series.py tree
refresh: ## the way back: build/linux's commits into patches/ and the new files
	@harness/tree/series.py refresh
series: setup ## out/: each part as mails, signed off by you (V=2: version 2)
	@harness/tree/series.py series
demo: tree ## each ULP on physical and DMA addresses, end to end; prints what it proved
	@harness/proof/demo.py
	@echo
	@harness/proof/twins.py
test: tree ## every test (AGAIN=1: also what has passed and is unchanged)
	@harness/proof/test.py
check: tree ## what reviewers run: checkpatch, sparse, coccicheck, kernel-doc, other compilers, every commit builds
	@harness/tree/setup check
	@harness/proof/check.py
bench: tree ## stock against series, as ratios
	@harness/measure/bench.py
guest-uml: tree ## a shell in a UML guest on the patched kernel
	@harness/guests/guest.py --shell uml
guest-x86: tree ## a shell in an x86-64 guest on the patched kernel (ACCEL=kvm)
	@harness/guests/guest.py --shell x86
clean: ## remove out/ and what was built; the trees stay
	rm -rf out build/run build/*/build-*
