"""Compiles one file as the build does, with another compiler and more flags, and keeps nothing: one.py BUILD FILE CC FLAGS..."""
import json
import os
import shlex
import subprocess
import sys

build, wanted, compiler, *flags = sys.argv[1:]
for entry in json.load(open(os.path.join(build, "compile_commands.json"))):
    if os.path.realpath(entry["file"]) != os.path.realpath(wanted):
        continue
    command = shlex.split(entry["command"])
    while os.path.basename(command[0]) == "ccache":
        command.pop(0)
    command[0] = compiler
    command[command.index("-o") + 1] = "/dev/null"
    sys.exit(subprocess.call(command + flags, cwd=entry["directory"]))
