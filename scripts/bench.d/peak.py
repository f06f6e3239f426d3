#!/usr/bin/env python3
"""Runs a command and prints its seconds and its peak resident memory in kB, separated by a tab."""
import os
import subprocess
import sys
import time

begin = time.monotonic()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(child.pid, 0)
if status:
    sys.exit(f"{sys.argv[1:]} failed")
print(f"{time.monotonic() - begin:.3f}\t{used.ru_maxrss}")
