"""The few verbs of Helm that the tests need, by its SDK; see `helm` beside this file."""

import json
import os
import re
import sys

import helm_python

TIMEOUT = 180
# For what: "watcher" waits until objects are as they should be, "hookOnly" where there is nobody to make them so.
WAIT = os.environ.get("HELM_WAIT", "watcher")


def main(verb, *arguments):
    """Runs one verb; a failure of Helm's is one line on standard error."""
    if verb == "version":
        return print(helm_python.helm_sdk_version())
    if verb == "lint":
        findings = helm_python.lint(arguments[0])
        print(json.dumps(findings, indent=1, default=str))
        return None
    if verb == "render":
        with helm_python.Chart.load(arguments[0]) as chart:
            results = [rendered(chart, text) for text in json.load(sys.stdin)]
            return print(json.dumps({"values": chart.values, "results": results}))
    name = arguments[0]
    namespace = os.environ.get("HELM_NAMESPACE", "default")
    if verb == "template":
        with helm_python.Chart.load(arguments[1]) as chart:
            files = chart.render(values(arguments), name=name, namespace=namespace)
        return print("\n".join(f"---\n# {path}\n{text}" for path, text in sorted(files.items())))
    with helm_python.Config(namespace=namespace) as config:
        if verb == "install":
            config.install(arguments[1], name, values(arguments), wait=WAIT, timeout=TIMEOUT,
                           create_namespace=True, namespace=namespace)
        elif verb == "upgrade":
            config.upgrade(arguments[1], name, values(arguments), wait=WAIT, timeout=TIMEOUT)
        elif verb == "rollback":
            config.rollback(name, version=int(arguments[1]), wait=WAIT, timeout=TIMEOUT)
        elif verb == "test":
            # Without logs: whatever succeeded is deleted before they would be fetched.
            config.test(name, timeout=TIMEOUT)
        elif verb == "uninstall":
            config.uninstall(name, wait=WAIT, timeout=TIMEOUT)
        else:
            sys.exit(f"{verb}: no such verb")
    return None


def rendered(chart, text):
    """What the chart makes of values in YAML: its files, and their objects; or what is wrong with the values."""
    try:
        release = {"name": "outrider", "namespace": "outrider"}
        files = chart.render(helm_python.values_from_yaml(text), **release)
    except helm_python.HelmError as error:
        return {"error": str(error)}
    notes = [path for path in files if path.endswith("NOTES.txt")]
    notes = "".join(files.pop(path) for path in notes)
    parts = [part for path in sorted(files) for part in re.split("(?m)^---$", files[path])]
    objects = [helm_python.values_from_yaml(part) for part in parts]
    return {"files": files, "notes": notes, "objects": [one for one in objects if one]}


def values(arguments):
    """The values given as JSON after the chart, or none."""
    return json.loads(arguments[2]) if len(arguments) > 2 else {}


try:
    main(*sys.argv[1:])
except helm_python.HelmError as error:
    sys.exit(f"helm: {error}")
