"""Writes a directory as a layer's tar archive, the same bytes each time: times zero, names sorted, owners 0.

usage: layer.py ARCHIVE DIRECTORY [NAME=CAPABILITY,CAPABILITY...]    capabilities that a file is permitted
"""

import os
import struct
import sys
import tarfile

# Numbers of linux/capability.h.
CAPABILITIES = {"net_admin": 12, "net_raw": 13}
# Version 2 of the attribute, without the bit that makes them effective: a container that is not granted them
# could not run the file then.
REVISION = 0x02000000


def attribute(names):
    """What the kernel reads from a file's `security.capability`."""
    permitted = sum(1 << CAPABILITIES[name] for name in names.split(","))
    return struct.pack("<5I", REVISION, permitted, 0, 0, 0).decode("ascii")


def add(layer, path, name, permitted):
    """Adds one file, link or directory."""
    layer.inodes.clear()  # files with two names are two files
    entry = layer.gettarinfo(path, arcname=name)
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
    if name in permitted:
        entry.pax_headers = {"SCHILY.xattr.security.capability": attribute(permitted[name])}
    if entry.isreg():
        with open(path, "rb") as file:
            layer.addfile(entry, file)
    else:
        layer.addfile(entry)


def main(archive, directory, *permitted):
    """Walks the directory."""
    permitted = dict(one.split("=") for one in permitted)
    names = []
    for root, directories, files in os.walk(directory):
        names += [os.path.relpath(os.path.join(root, name), directory) for name in directories + files]
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as layer:
        for name in sorted(names):
            add(layer, os.path.join(directory, name), name, permitted)


main(*sys.argv[1:])
