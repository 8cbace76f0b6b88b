#!/usr/bin/env bash
# Builds the release again and compares all bytes with what `make dist` made of the same commit: from a clone in another
# folder, by another user with umask 077, with another home and another CARGO_HOME.
#   test-reproducible.sh                  both architectures
#   ARCHES=x86_64 test-reproducible.sh    one; the image holds both, so it is left out of the comparison
#   FLOWTEL_AGAIN=DIR                     keeps its folders there, and goes on with what an interrupted run left
# Needs root, to become another user. Takes as long as a build from nothing.
. "$(dirname "$0")/lib.sh"
[ "$(id -u)" = 0 ] || die "test-dist becomes another user, which needs root"
[ -f "$dist/SHA256SUMS" ] || die "there is nothing to compare with: make dist"
[ -z "$(git status --porcelain --untracked-files=no)" ] || die "files differ from the commit, and a clone would not have them"
pin_rust
user=65534

if [ -n "${FLOWTEL_AGAIN:-}" ]; then
    scratch=$FLOWTEL_AGAIN
    mkdir -p "$scratch"
else
    scratch=$(mktemp -d /var/tmp/flowtel-again-XXXXXX)
    trap 'rm -rf "$scratch"' EXIT
fi
chmod 0755 "$scratch"
elsewhere=$scratch/another/place/for-flowtel
mkdir -p "$(dirname "$elsewhere")" "$scratch"/{home,rust,cargo/registry,tools}
commit=$(git rev-parse HEAD)
if [ ! -e "$elsewhere/.git" ]; then git clone --quiet --no-hardlinks "$root" "$elsewhere"; fi
git=(git -c "safe.directory=$elsewhere" -C "$elsewhere")
"${git[@]}" fetch --quiet "$root" "$commit"
"${git[@]}" checkout --quiet --detach "$commit"
# Crates come along packed, so that nothing is fetched; what is unpacked is this user's.
cargo_home=$(realpath "${CARGO_HOME:-$HOME/.cargo}")
cp -r "$cargo_home/registry/cache" "$cargo_home/registry/index" "$scratch/cargo/registry/"
mkdir -p "$elsewhere/target/dist-tools"
chown -R "$user:$user" "$scratch/another" "$scratch/home" "$scratch/cargo"
sysroot=$(rustc --print sysroot)

# Compiler and tools are shown at other places: where they are this user may not be able to look.
# shellcheck disable=SC2016 # for the inner shell
unshare --mount --propagation private bash -euc '
    mount --bind "$1" "$2/rust"
    mount --bind "$3" "$4/target/dist-tools"
    shift 4
    exec "$@"
' bash "$sysroot" "$scratch" "$(realpath "$tools")" "$elsewhere" \
    setpriv --reuid "$user" --regid "$user" --clear-groups \
    env -i HOME="$scratch/home" CARGO_HOME="$scratch/cargo" CARGO_NET_OFFLINE=true ARCHES="${ARCHES:-${dist_arches[*]}}" \
    CARGO_BUILD_JOBS="${CARGO_BUILD_JOBS:-$(nproc)}" PATH="$scratch/rust/bin:/usr/bin:/bin" \
    bash -c 'umask 077 && cd "$1" && scripts/dist/dist.sh' bash "$elsewhere"

again=$elsewhere/target/dist
compared=0 different=0
while read -r sum name; do
    case "$name:${ARCHES:-all}" in *-oci.tar:all) ;; *-oci.tar:*) continue ;; esac
    compared=$((compared + 1))
    if grep -qxF "$sum  $name" "$dist/SHA256SUMS"; then
        echo "same: $name"
    else
        different=$((different + 1))
        echo "DIFFERENT: $name"
        ! command -v cmp >/dev/null || cmp "$dist/$name" "$again/$name" || true
    fi
done <"$again/SHA256SUMS"
[ "$compared" -gt 0 ] || die "the second build made nothing"
echo "$((compared - different)) passed, $different failed"
[ "$different" = 0 ]
