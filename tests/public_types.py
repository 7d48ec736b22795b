"""Which types of other crates stand in the public API: only those of an allow list may.

    python3 tests/public_types.py target/doc/tower_realtime_auth.json

Reads rustdoc's JSON. A type of a 0.x crate in a signature would tie our versions to that crate's.
"""

import json
import sys

ALLOWED = {
    # The language.
    "core", "alloc", "std",
    # At 1.0, or what every Tower middleware shares.
    "http", "http_body", "bytes", "tower_layer", "tower_service",
    # futures-core's alias for a boxed future, which names only types of std; and the traits
    # that every stream and sink implements.
    "futures_core", "futures_sink", "futures_util",
    # In their features, which are named after them.
    "axum_core", "tracing",
    # In an impl of `Unpin` that its macro writes and nobody can name.
    "pin_project_lite",
}


def ids_in(node):
    """The ids of all types that a piece of a signature names."""
    if isinstance(node, dict):
        if "resolved_path" in node:
            yield node["resolved_path"]["id"]
        if node.keys() >= {"path", "id"}:
            yield node["id"]
        for child in node.values():
            yield from ids_in(child)
    elif isinstance(node, list):
        for child in node:
            yield from ids_in(child)


def main(path):
    docs = json.load(open(path))
    crates = {int(number): crate["name"] for number, crate in docs["external_crates"].items()}
    named = {}
    for item in docs["index"].values():
        if item["crate_id"] != 0:
            continue
        public = item["visibility"] in ("public", "default")
        inner = item["inner"]
        if "impl" in inner:
            # Blanket and automatic impls are the compiler's, not ours.
            if inner["impl"]["is_synthetic"] or inner["impl"]["blanket_impl"]:
                continue
            signature = {key: inner["impl"][key] for key in ("trait", "for", "generics")}
        elif not public or "module" in inner:
            continue
        elif "struct" in inner or "enum" in inner or "trait" in inner:
            signature = {kind: body.get("generics") for kind, body in inner.items()}
        else:
            signature = inner
        for found in ids_in(signature):
            summary = docs["paths"].get(str(found))
            if summary and summary["crate_id"] != 0:
                crate = crates[summary["crate_id"]]
                named.setdefault(crate, set()).add(f"{item['name'] or 'impl'}: {'::'.join(summary['path'])}")
    foreign = {crate: uses for crate, uses in named.items() if crate not in ALLOWED}
    print("named in the public API:", ", ".join(sorted(named)))
    if not named.keys() & {"http", "core"}:
        sys.exit("no signature was read: has rustdoc's format changed?")
    for crate, uses in sorted(foreign.items()):
        print(f"{crate} must not be:", *sorted(uses), sep="\n    ")
    sys.exit(1 if foreign else 0)


main(sys.argv[1])
