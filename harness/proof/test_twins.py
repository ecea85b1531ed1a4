#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What the demo of twins prints, and what it does if a guest shows less."""
import contextlib
import io
import pathlib
import sys
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from guests import guest, kernel  # noqa: E402
from proof import twins  # noqa: E402

OUTPUT = """# twin: NVMe-oF
1..2
# wrote=1048576 verified=1048576
ok 1 rxe verify_small
# wrote=2097152 verified=1048576
ok 2 rxe verify
# twin: iSER
1..1
ok 1 rxe verify
# twin: SRP
1..1
# wrote=2097152 verified=2097152
ok 1 rxe verify
# twin: RNBD
1..1
# wrote=1048576 verified=1048576
ok 1 rxe verify
# twin: RDS
1..1
# bytes=524288
ok 1 rxe messages
# twin:
# bytes=4096
ok 1 no errors
"""


class Twins(unittest.TestCase):
    def run_it(self, *outputs, status=0, problem=None):
        """Exit status and output, if the guests leave this."""
        results = [mock.Mock(output=output, status=status, problem=problem, why=problem)
                   for output in outputs]
        out = io.StringIO()
        with mock.patch.object(kernel.Kernel, "build"), \
                mock.patch.object(guest, "run", side_effect=results), \
                mock.patch.object(sys, "argv", ["twins.py"]), \
                contextlib.redirect_stdout(out):
            end = None
            try:
                twins.main()
            except SystemExit as error:
                end = error.code
        return end, out.getvalue()

    def test_verified(self):
        self.assertEqual(twins.verified(OUTPUT), {"NVMe-oF": 2 << 20, "iSER": 0, "SRP": 2 << 20,
                                                 "RNBD": 1 << 20, "RDS": 1 << 19})
        self.assertEqual(twins.verified(""), {})

    def test_table(self):
        end, printed = self.run_it(OUTPUT, OUTPUT.replace("1048576", "3145728"), OUTPUT)
        self.assertIsNone(end)
        self.assertEqual(printed.split("\n\n")[1], "MiB verified  iommu  bounce  direct\n"
                         "NVMe-oF       2.0    6.0     2.0\n"
                         "iSER          0.0    0.0     0.0\n"
                         "SRP           2.0    2.0     2.0\n"
                         "RNBD          1.0    3.0     1.0\n"
                         "RDS           0.5    0.5     0.5\n")

    def test_guest_that_shows_less(self):
        for output in (OUTPUT.replace("ok 1 no", "not ok 1 no"),
                       OUTPUT[:OUTPUT.index("ok 1 rxe messages")],
                       OUTPUT.replace("ok 2 rxe verify", "ok 2 rxe verify # SKIP no disk")):
            self.assertRegex(str(self.run_it(output)[0]), "^harness: twin, iommu: ")
        self.assertRegex(str(self.run_it(OUTPUT, status=None, problem="it died")[0]),
                         "^harness: twin, iommu: it died")
        self.assertRegex(str(self.run_it(OUTPUT, problem="splat: BUG")[0]),
                         "^harness: twin, iommu: splat: BUG")


if __name__ == "__main__":
    unittest.main()
