#!/usr/bin/env bash
# Lays out beside the binary what the packages hold besides it: stage.sh x86_64|aarch64. Manual pages and completions are
# written by the x86-64 binary of the same sources, for both architectures.
. "$(dirname "$0")/lib.sh"
arch=${1:?which architecture: ${dist_arches[*]}}
triple=$arch-unknown-linux-musl
pin_rust
into=$target/$triple/release/dist
program=$target/x86_64-unknown-linux-musl/release/flowtel
rm -rf "$into"
mkdir -p "$into"/{bin,man,completions,doc,deb}

# The unit of the sources is for a program in /usr/local/bin, and says how to put it there.
sed -e '1,/^\[Unit\]/ { /^#/d }' -e 's,/usr/local/bin/,/usr/bin/,' config/flowtel.service >"$into/flowtel.service"
grep -q '^ExecStart=/usr/bin/flowtel ' "$into/flowtel.service" || die "config/flowtel.service starts no /usr/local/bin/flowtel"
cp config/flowtel.toml "$into/flowtel.toml"
cp packaging/sysusers.d/flowtel.conf "$into/flowtel.conf"
cp "$target/$triple/release/flowtel" "$into/bin/flowtel"

"$program" man "$into/man"
gzip -n9 "$into"/man/*.1
"$program" completions bash >"$into/completions/flowtel.bash"
"$program" completions zsh >"$into/completions/_flowtel"
"$program" completions fish >"$into/completions/flowtel.fish"

cp README.md LICENSE LICENSE-MIT "$into/doc/"
gzip -n9 <CHANGELOG.md >"$into/doc/changelog.gz"
cargo about generate --locked --offline --fail --target "$triple" --manifest-path exporter/Cargo.toml \
    --config packaging/licences/about.toml packaging/licences/about.hbs -o "$into/doc/THIRD-PARTY-LICENCES.txt"
gzip -n9 "$into/doc/THIRD-PARTY-LICENCES.txt"

cat >"$into/deb/copyright" <<EOF
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: flowtel
Source: https://github.com/flowtel/flowtel
Comment: Libraries that are linked in have licences of their own: /usr/share/doc/flowtel/THIRD-PARTY-LICENCES.txt.gz

Files: *
Copyright: 2026 The flowtel authors
License: Apache-2.0

Files: exporter-ebpf/*
Copyright: 2026 The flowtel authors
License: Expat or GPL-2

License: Apache-2.0
 On Debian systems the text of the Apache License 2.0 is in /usr/share/common-licenses/Apache-2.0.

License: Expat
$(sed -n '/^Permission is hereby/,$p' LICENSE-MIT | sed 's/^$/./; s/^/ /')

License: GPL-2
 On Debian systems the text of the GNU General Public License 2 is in /usr/share/common-licenses/GPL-2.
EOF
cat >"$into/deb/changelog.Debian" <<EOF
flowtel ($version-1) unstable; urgency=medium

  * Release $version: changelog.gz beside this file says what is in it.

 -- The flowtel authors <flowtel@users.noreply.github.com>  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
EOF
gzip -n9 "$into/deb/changelog.Debian"

# An rpm keeps the time of a file that is older than the commit, and a checkout or a build may be.
find "$into" -type f -exec touch --date "@$SOURCE_DATE_EPOCH" {} +
