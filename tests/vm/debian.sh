# Debian's kernels and its busybox for the emulated machines, of whatever release and architecture. Sourced by kernels.sh, which
# sets work (the folder that keeps them) and debian (Debian's name of the architecture).
# shellcheck shell=bash disable=SC2154

# Where this machine gets Debian from, for whatever release.
mirror() {
    { grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null || true; } |
        head -n 1 | sed 's, *$,,; s,/$,,' | grep . || echo http://deb.debian.org/debian
}

# Points apt at a suite of this architecture, beside this machine's own: sets the array apt, and fetches the suite's list.
apt_of() {
    local suite=$1 state=$2 main
    main=$(mirror)
    mkdir -p "$state/lists/partial" "$state/archives"
    echo "deb $main $suite main" >"$state/sources.list"
    [ "$suite" = sid ] || echo "deb ${main}-security $suite-security main" >>"$state/sources.list"
    apt=(-q -o "Dir::Etc::sourcelist=$state/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$state/lists" -o "Dir::Cache=$state" -o APT::Get::List-Cleanup=0 -o APT::Sandbox::User=root
        -o "APT::Architecture=$debian" -o "APT::Architectures::=$debian")
    apt-get "${apt[@]}" update >&2
}

# A static busybox of this architecture; prints where it is.
busybox_of() {
    local state=$work/apt-busybox into=$work/busybox-$debian
    if [ "$debian" = "$(dpkg --print-architecture)" ]; then
        command -v busybox
        return
    fi
    if [ ! -x "$into" ]; then
        rm -rf "$state"
        apt_of bookworm "$state"
        (cd "$state" && apt-get "${apt[@]}" download busybox-static >&2)
        dpkg-deb -x "$state"/busybox-static_*.deb "$state/unpacked"
        mv "$(find "$state/unpacked" -path '*bin/busybox' -type f | head -n 1)" "$into"
        rm -rf "$state"
    fi
    echo "$into"
}

# The kernel of a suite, unpacked; prints its folder.
kernel() {
    local suite=$1 name=$1 package
    # x86-64 came first: its folders have no suffix.
    [ "$debian" = amd64 ] || name=$1-$debian
    local state=$work/apt-$name into=$work/$name
    # An older run of this script kept no modules of the newest kernels.
    if [ -n "$(find "$into" -name 'veth.ko*' 2>/dev/null)" ]; then
        echo "$into"
        return
    fi
    rm -rf "$into" "$into.new"
    apt_of "$suite" "$state"
    package=$(apt-cache "${apt[@]}" depends "linux-image-cloud-$debian" | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p' | head -n 1)
    [ -n "$package" ] || { echo "kernels: $suite has no cloud kernel" >&2; return 1; }
    # Of late the image package holds nothing but a dependency on the one that does.
    while [ -n "$package" ]; do
        (cd "$state" && apt-get "${apt[@]}" download "$package" >&2)
        dpkg-deb -x "$state/$package"_*.deb "$into.new"
        if compgen -G "$into.new/boot/vmlinuz*" >/dev/null || compgen -G "$into.new/usr/lib/modules/*/vmlinuz*" >/dev/null; then
            break
        fi
        package=$(dpkg-deb -f "$state/$package"_*.deb Depends | sed 's:[,|]:\n:g' | sed 's/(.*//; s/ //g' |
            grep -E '^linux-(binary|image|vmlinuz|kernel|main)' | head -n 1 || true)
    done
    [ -n "$package" ] || { echo "kernels: no kernel found in the packages of $suite" >&2; return 1; }
    # And so it is with the modules.
    if [ -z "$(find "$into.new" -name 'veth.ko*')" ]; then
        local modules=linux-modules-${package#linux-*-}
        (cd "$state" && apt-get "${apt[@]}" download "$modules" >&2)
        dpkg-deb -x "$state/$modules"_*.deb "$into.new"
    fi
    mv "$into.new" "$into"
    rm -rf "$state"
    echo "$into"
}
