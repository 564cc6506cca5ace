"""Writes what is in an image as CycloneDX JSON: crates as Cargo's lock file has them, Debian packages as they were unpacked.

usage: sbom.py OUT IMAGE VERSION TARGET PACKAGE... [-- DEBIAN-ARCHIVE...]
The same sources give the same bytes: there is no time and no random number in it.
"""

import json
import subprocess
import sys


def crates(target, packages):
    """Every crate that ends up in these packages' programs on that target: what builds and tests them is left out."""
    command = ["cargo", "metadata", "--locked", "--format-version=1", f"--filter-platform={target}"]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    by_id = {one["id"]: one for one in metadata["packages"]}
    nodes = {one["id"]: one for one in metadata["resolve"]["nodes"]}
    pending = [one["id"] for one in metadata["packages"] if one["name"] in packages and not one["source"]]
    found = set()
    while pending:
        current = pending.pop()
        if current in found:
            continue
        found.add(current)
        for dependency in nodes[current]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                pending.append(dependency["pkg"])
    return [by_id[one] for one in found]


def library(crate):
    """A crate as a component."""
    name, version = crate["name"], crate["version"]
    component = {"type": "library", "name": name, "version": version}
    if crate["source"]:
        component["purl"] = f"pkg:cargo/{name}@{version}"
    if crate["license"]:
        component["licenses"] = [{"expression": crate["license"].replace("/", " OR ")}]
    return component


def debian(archive):
    """A Debian package as a component."""
    fields = subprocess.run(["dpkg-deb", "--field", archive, "Package", "Version", "Architecture"],
                            check=True, capture_output=True, text=True).stdout
    fields = dict(line.split(": ", 1) for line in fields.splitlines())
    name, version = fields["Package"], fields["Version"]
    purl = f"pkg:deb/debian/{name}@{version}?arch={fields['Architecture']}"
    return {"type": "library", "name": name, "version": version, "purl": purl}


def main(out, image, version, target, *rest):
    """Puts it together."""
    rest = list(rest)
    split = rest.index("--") if "--" in rest else len(rest)
    components = [library(crate) for crate in crates(target, rest[:split])]
    components += [debian(archive) for archive in rest[split + 1:]]
    components.sort(key=lambda one: (one["name"], one["version"]))
    bill = {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": {"type": "container", "name": image, "version": version}},
        "components": components,
    }
    with open(out, "w", encoding="utf-8") as file:
        json.dump(bill, file, indent=1)
        file.write("\n")


main(*sys.argv[1:])
