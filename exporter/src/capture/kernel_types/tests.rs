use proptest::prelude::*;

use super::*;

/// BTF with: int (1); struct inner { int a; int b; } (2); an anonymous union { struct inner in; int alone; } (3);
/// typedef inner_t (4); struct sock { int first; union {..}; inner_t sk_err; int flag:1; } (5).
fn btf() -> Vec<u8> {
    let mut names = vec![0u8];
    let mut name = |text: &str| {
        let at = u32::try_from(names.len()).expect("short");
        names.extend_from_slice(text.as_bytes());
        names.push(0);
        at
    };
    let (int, inner, a, b) = (name("int"), name("inner"), name("a"), name("b"));
    let (within, alone, inner_t) = (name("in"), name("alone"), name("inner_t"));
    let (sock, first, sk_err, flag) = (name("sock"), name("first"), name("sk_err"), name("flag"));
    let info = |kind: u32, length: u32, bits: bool| kind << 24 | length | u32::from(bits) << 31;
    let words: Vec<u32> = [
        &[int, info(INT, 0, false), 4, 32][..],
        &[inner, info(STRUCT, 2, false), 8, a, 1, 0, b, 1, 32],
        &[0, info(UNION, 2, false), 8, within, 2, 0, alone, 1, 0],
        &[inner_t, info(TYPEDEF, 0, false), 2],
        &[sock, info(STRUCT, 4, true), 24, first, 1, 0, 0, 3, 64, sk_err, 4, 128, flag, 1, 1 << 24 | 193],
    ]
    .concat();
    let types: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("short").to_ne_bytes();
    let header = [
        &0x0001_eb9f_u32.to_ne_bytes(),
        &24u32.to_ne_bytes(),
        &[0; 4],
        &length(&types),
        &length(&types),
        &length(&names),
    ];
    [header.map(|word| word.to_vec()).concat(), types, names].concat()
}

fn offset(path: &'static str) -> Option<u32> {
    let bytes = btf();
    let types = Types::read(&bytes).expect("BTF");
    let sock = types.at(*types.starts.last()? as usize)?;
    let found = types.offset(sock, path);
    assert_eq!(types.offsets(&[Member { structure: "sock", path }]), [found.unwrap_or_default()]);
    found
}

#[test]
fn members_are_found_also_within_anonymous_ones_and_behind_a_typedef() {
    assert_eq!(offset("first"), Some(0));
    assert_eq!(offset("alone"), Some(8));
    assert_eq!(offset("in.b"), Some(12));
    assert_eq!(offset("sk_err.b"), Some(20));
}

#[test]
fn what_is_not_there_or_a_bit_field_has_no_offset() {
    assert_eq!(offset("second"), None);
    assert_eq!(offset("first.a"), None);
    assert_eq!(offset("flag"), None);
    let bytes = btf();
    assert_eq!(Types::read(&bytes).expect("BTF").offsets(&[Member { structure: "tcp_sock", path: "a" }]), [0]);
}

#[test]
fn btf_that_is_cut_anywhere_is_refused_or_says_less() {
    let whole = btf();
    for end in 0..whole.len() {
        let _ = offsets_in(&whole[..end]);
    }
}

#[test]
fn the_running_kernel_says_where_all_members_are_or_nothing() {
    let offsets = offsets();
    let known = offsets.iter().filter(|offset| **offset != 0).count();
    if Path::new(VMLINUX).exists() {
        for (member, offset) in MEMBERS.iter().zip(offsets) {
            println!("{}.{}: {offset}", member.structure, member.path);
        }
        assert_ne!(known, 0);
    } else {
        assert_eq!(known, 0);
    }
}

proptest! {
    #[test]
    fn any_bytes_behind_the_magic_word_are_read_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        let _ = offsets_in(&[&0x0001_eb9f_u32.to_ne_bytes()[..], &bytes].concat());
        let mut btf = btf();
        for (at, value) in flips {
            let at = at.index(btf.len());
            btf[at] = value;
        }
        let _ = offsets_in(&btf);
    }
}
