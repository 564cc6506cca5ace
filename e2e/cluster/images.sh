#!/bin/bash
# Builds what a node imports: Outrider's three images (unoptimised unless PROFILE says otherwise) and one of busybox,
# which sandboxes, workloads and clients of pods run.
. "$(dirname "$0")/env.sh"

mkdir -p "$images"
export REPOSITORY=outrider.local TAG=e2e PROFILE=${PROFILE:-dev}
if [ ! -f "$images/busybox.tar" ]; then
    files=$(mktemp -d)
    trap 'rm -rf "$files"' EXIT
    mkdir -p "$files"/{bin,www}
    cp "$runtime/bin/busybox" "$files/bin/"
    for name in $("$files/bin/busybox" --list); do
        [ "$name" = busybox ] || ln -s busybox "$files/bin/$name"
    done
    echo hello >"$files/www/index.html"
    "$root/charts/images/pack.sh" "$images/busybox.tar" $REPOSITORY/busybox:$TAG \
        "$(dpkg --print-architecture)" 65534:65534 "$files" /bin/sleep 2147483647
fi

# Made again only if what they are made of has changed: sources, locked crates, compiler, settings.
made_of() {
    cd "$root"
    printf '%s\n' "$PROFILE" "$REPOSITORY:$TAG" "$(rustc -vV)"
    git ls-files -z --cached --others --exclude-standard -- Cargo.toml Cargo.lock proxy init agent-bridge charts/images |
        xargs -0 sha256sum 2>/dev/null || true
}
made=$(made_of | sha256sum)
if [ "$made" != "$(cat "$images/made-of" 2>/dev/null)" ] || [ ! -f "$images/outrider-agent-bridge.tar" ] || [ ! -x "$plugins/kubectl-outrider" ]; then
    rm -f "$images/made-of"
    "$root/charts/images/build.sh" "$images"
    mkdir -p "$plugins"
    cp "${CARGO_TARGET_DIR:-$root/target}/static"/*/"${PROFILE/#dev/debug}/outrider" "$plugins/kubectl-outrider"
    echo "$made" >"$images/made-of"
fi

# Another revision gets a version of its own, by which cargo tells its crates from these.
if [ -n "$previous" ] && [ "$PROFILE" != "$(cat "$previous/made-of" 2>/dev/null)" ]; then
    say "building images of $PREVIOUS"
    rm -f "$previous/made-of"
    mkdir -p "$previous/tree"
    git -C "$root" archive "${previous##*/}" | tar -x -C "$previous/tree"
    sed -i "/^\[workspace.package\]/,/^\[/ s/^version = .*/version = \"0.0.0-g${previous##*/}\"/" "$previous/tree/Cargo.toml"
    sed -i "/^name = \"outrider-/ {n; s/.*/version = \"0.0.0-g${previous##*/}\"/}" "$previous/tree/Cargo.lock"
    TAG=$previous_tag SOURCES=$previous/tree "$root/charts/images/build.sh" "$previous/images"
    echo "$PROFILE" >"$previous/made-of"
fi
