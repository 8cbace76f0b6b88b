//! The running kernel's BTF in; where members of its structures lie out ([`flowtel_common::kernel`]).
//!
//! The format is that of Documentation/bpf/btf.rst. One pass notes where each type begins; a member is then looked up by its
//! structure's name and its path. The bytes are the kernel's own, yet nothing here trusts a length or an index.
//!
//! By hand, for aya finds types but not members, and btf-rs is under the LGPL, which does not fit a static binary.
//!
//! Must never panic, and never guess: a member that is not found has no offset.

use std::{fs, path::Path, sync::OnceLock};

use flowtel_common::kernel::{CRED_UID, LEN, MEMBERS, Member, Offsets, TASK_COMM, TASK_CRED, TASK_PID, TASK_TGID};

/// Where the kernel shows its own types; absent where it was built without CONFIG_DEBUG_INFO_BTF.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// More than any kernel's types take: BTF of 2026 has some 6 MiB.
const MOST_BYTES: u64 = 64 << 20;

/// First half-word of BTF.
const MAGIC: u16 = 0xeb9f;

// Kinds of types (include/uapi/linux/btf.h).
const INT: u32 = 1;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const DECL_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// Anonymous members within anonymous members, and modifiers of a type, that are followed.
const MOST_DEPTH: u32 = 16;

/// The offsets of all [`MEMBERS`] on the running kernel. All are unknown where it has no BTF, or the file can't be read.
pub fn offsets() -> Offsets {
    static FOUND: OnceLock<Offsets> = OnceLock::new();
    *FOUND.get_or_init(|| read(Path::new(VMLINUX)).map_or([0; LEN], |bytes| offsets_in(&bytes)))
}

/// Whether they are enough to tell which process a thread belongs to, and whose it is: who calls listen().
pub fn tell_callers() -> bool {
    let offsets = offsets();
    [TASK_TGID, TASK_PID, TASK_COMM, TASK_CRED, CRED_UID].iter().all(|member| offsets.get(*member) != Some(&0))
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let length = fs::metadata(path).ok()?.len();
    (length <= MOST_BYTES).then(|| fs::read(path).ok())?
}

fn offsets_in(bytes: &[u8]) -> Offsets {
    Types::read(bytes).map_or([0; LEN], |types| types.offsets(&MEMBERS))
}

/// The types that BTF describes.
struct Types<'b> {
    /// The section of types, and the one of names.
    types: &'b [u8],
    names: &'b [u8],
    /// Where each type begins. Ids count from 1.
    starts: Vec<u32>,
}

/// A type's first three words.
#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    /// How many members follow it.
    length: u32,
    /// Its members may be bit-fields.
    bit_fields: bool,
    /// The size, or the type that it refers to.
    refers: u32,
    /// Where what follows the three words begins.
    rest: usize,
}

// === impl Types

impl<'b> Types<'b> {
    fn read(bytes: &'b [u8]) -> Option<Self> {
        let magic = bytes.get(..2).and_then(|two| two.try_into().ok()).map(u16::from_ne_bytes)?;
        if magic != MAGIC {
            return None;
        }
        let word = |at| word(bytes, at).map(|word| word as usize);
        let header = word(4)?;
        let section = |at, length| {
            let start = header.checked_add(at)?;
            bytes.get(start..start.checked_add(length)?)
        };
        let types = section(word(8)?, word(12)?)?;
        let names = section(word(16)?, word(20)?)?;
        let mut this = Self { types, names, starts: Vec::new() };
        let mut at = 0;
        while at < types.len() {
            this.starts.push(u32::try_from(at).ok()?);
            let found = this.at(at)?;
            at = found.rest + rest_of(found.kind, found.length)?;
        }
        Some(this)
    }

    fn at(&self, at: usize) -> Option<Type> {
        let info = word(self.types, at + 4)?;
        Some(Type {
            name: word(self.types, at)?,
            kind: info >> 24 & 0x1f,
            length: info & 0xffff,
            bit_fields: info >> 31 != 0,
            refers: word(self.types, at + 8)?,
            rest: at + 12,
        })
    }

    /// The type with this id, behind `const`, `typedef` and the like.
    fn plain(&self, mut id: u32) -> Option<Type> {
        for _ in 0..MOST_DEPTH {
            let index = usize::try_from(id).ok()?.checked_sub(1)?;
            let found = self.at(*self.starts.get(index)? as usize)?;
            if !matches!(found.kind, TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG) {
                return Some(found);
            }
            id = found.refers;
        }
        None
    }

    fn is_named(&self, offset: u32, name: &str) -> bool {
        let text = self.names.get(offset as usize..).unwrap_or_default();
        text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }

    /// Where members lie, bytes from the start of their structures: in one pass, for a kernel has 100,000 types and more.
    /// 0 where there is no such member, or it is a bit-field.
    fn offsets<const N: usize>(&self, members: &[Member; N]) -> [u32; N] {
        let mut offsets = [0; N];
        let all = self.starts.iter().filter_map(|at| self.at(*at as usize));
        // A declaration alone is of another kind.
        for structure in all.filter(|found| matches!(found.kind, STRUCT | UNION)) {
            for (offset, member) in offsets.iter_mut().zip(members) {
                if *offset == 0 && self.is_named(structure.name, member.structure) {
                    *offset = self.offset(structure, member.path).unwrap_or_default();
                }
            }
        }
        offsets
    }

    /// Where the member lies that `path` leads to from `structure`, bytes.
    fn offset(&self, structure: Type, path: &str) -> Option<u32> {
        let mut place = (structure, 0u32);
        for name in path.split('.') {
            let (found, bits) = self.member(place.0, name, MOST_DEPTH)?;
            place = (found?, place.1.checked_add(bits)?);
        }
        place.1.is_multiple_of(8).then_some(place.1 / 8)
    }

    /// A member's type and its place, bits from the start of `structure`. The type is `None` for a bit-field.
    fn member(&self, structure: Type, name: &str, depth: u32) -> Option<(Option<Type>, u32)> {
        if depth == 0 || !matches!(structure.kind, STRUCT | UNION) {
            return None;
        }
        (0..structure.length as usize).find_map(|index| {
            let at = structure.rest + index * 12;
            let (its_name, id, place) = (word(self.types, at)?, word(self.types, at + 4)?, word(self.types, at + 8)?);
            let (bits, width) = if structure.bit_fields { (place & 0x00ff_ffff, place >> 24) } else { (place, 0) };
            if self.is_named(its_name, name) {
                return Some((if width == 0 { self.plain(id) } else { None }, bits));
            }
            if !self.is_named(its_name, "") {
                return None;
            }
            let (found, further) = self.member(self.plain(id)?, name, depth - 1)?;
            Some((found, bits.checked_add(further)?))
        })
    }
}

/// How many bytes follow the three words of a type. `None` for a kind that is not known: nothing behind it can be found.
fn rest_of(kind: u32, length: u32) -> Option<usize> {
    let length = length as usize;
    Some(match kind {
        INT | VAR | DECL_TAG => 4,
        ARRAY => 12,
        STRUCT | UNION | DATASEC | ENUM64 => length * 12,
        ENUM | FUNC_PROTO => length * 8,
        // Pointers, forward declarations, typedefs, modifiers, functions, floats, tags of types.
        2 | 7..=10 | 11 | 12 | 16 | TYPE_TAG => 0,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    four.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests;
