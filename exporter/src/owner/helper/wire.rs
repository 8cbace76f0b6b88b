//! What goes between flowtel and its helper: requests of one size, several in a datagram; answers of a bounded size, a datagram
//! each. Both ends run the same program, but neither trusts the other: whatever comes is decoded or refused.

/// Requests in a datagram.
pub(super) const MOST: usize = 64;
/// Bytes of a datagram of requests: sequence number, count, and the requests, of which unused ones are zero.
pub(super) const REQUESTS: usize = 8 + MOST * 16;
/// The longest path that the kernel gives.
pub(super) const PATH: usize = 4096;
const HEAD: usize = 64;
/// The longest answer.
pub(super) const LONGEST: usize = HEAD + PATH;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Request {
    /// What a process runs.
    Process(u32),
    /// The path of the cgroup with this number.
    Cgroup(u64),
    /// The network namespace of a process, by its inode number.
    Netns(u32),
}

/// What is answered: an error by its number, as the kernel gave it.
pub type Answer = Result<Found, i32>;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Of a process.
    Process(Process),
    /// A path, as it lies in the helper's file system: the same as flowtel's.
    Cgroup(Vec<u8>),
    /// An inode number.
    Netns(u64),
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Process {
    /// When it began, in clock ticks.
    pub start: u64,
    /// Its parent.
    pub parent: u32,
    /// The file that it runs: device number, major and minor, and inode number. 0: not known.
    pub device: (u32, u32),
    /// See `device`.
    pub inode: u64,
    /// The inode number of its mount namespace. 0: not known.
    pub mounts: u64,
    /// What the link to its executable holds.
    pub link: Vec<u8>,
}

const PROCESS: u32 = 1;
const CGROUP: u32 = 2;
const NETNS: u32 = 3;

/// A datagram of requests: at most [`MOST`] of them are in it.
pub(super) fn encode(sequence: u32, requests: &[Request]) -> [u8; REQUESTS] {
    let mut bytes = [0; REQUESTS];
    let count = requests.len().min(MOST);
    let words = requests.iter().take(MOST).flat_map(|request| {
        let (kind, number) = match *request {
            Request::Process(pid) => (PROCESS, u64::from(pid)),
            Request::Cgroup(id) => (CGROUP, id),
            Request::Netns(pid) => (NETNS, u64::from(pid)),
        };
        [u64::from(kind), number]
    });
    let head = u64::from(sequence) | (count as u64) << 32;
    for (to, word) in bytes.chunks_exact_mut(8).zip(std::iter::once(head).chain(words)) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// The sequence number, and the requests. `None` where it is no such datagram.
pub(super) fn decode(bytes: &[u8]) -> Option<(u32, Vec<Request>)> {
    if bytes.len() != REQUESTS {
        return None;
    }
    let mut words = bytes.chunks_exact(8).filter_map(|word| Some(u64::from_le_bytes(word.try_into().ok()?)));
    let head = words.next()?;
    let count = usize::try_from(head >> 32).ok().filter(|count| *count <= MOST)?;
    let mut requests = Vec::with_capacity(count);
    for _ in 0..count {
        let (kind, number) = (words.next()?, words.next()?);
        let pid = || u32::try_from(number).ok();
        requests.push(match u32::try_from(kind).ok()? {
            PROCESS => Request::Process(pid()?),
            CGROUP => Request::Cgroup(number),
            NETNS => Request::Netns(pid()?),
            _ => return None,
        });
    }
    Some((head as u32, requests))
}

/// A datagram with the answer to the request with the number `index`.
pub(super) fn encode_answer(sequence: u32, index: usize, answer: &Answer) -> Vec<u8> {
    let mut words = [0_u64; HEAD / 8];
    let mut path: &[u8] = &[];
    let error = match answer {
        Err(error) => u64::from(error.unsigned_abs()),
        Ok(_) => 0,
    };
    words[0] = u64::from(sequence) | (index as u64) << 32;
    words[1] = error;
    match answer {
        Err(_) => {}
        Ok(Found::Process(process)) => {
            let Process { start, parent, device, inode, mounts, link } = process;
            let device = u64::from(device.0) << 32 | u64::from(device.1);
            words[2..].copy_from_slice(&[PROCESS.into(), *start, u64::from(*parent), device, *inode, *mounts]);
            path = link;
        }
        Ok(Found::Cgroup(found)) => {
            words[2] = CGROUP.into();
            path = found;
        }
        Ok(Found::Netns(inode)) => words[2..4].copy_from_slice(&[NETNS.into(), *inode]),
    }
    let mut bytes = Vec::with_capacity(HEAD + path.len());
    words.iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    bytes.extend_from_slice(path.get(..path.len().min(PATH)).unwrap_or_default());
    bytes
}

/// Sequence number, index and answer. `None` where it is no such datagram.
pub(super) fn decode_answer(bytes: &[u8]) -> Option<(u32, usize, Answer)> {
    let (head, path) = bytes.split_at_checked(HEAD)?;
    let mut words = [0; HEAD / 8];
    for (word, bytes) in words.iter_mut().zip(head.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().ok()?);
    }
    let [head, error, kind, start, parent, device, inode, mounts] = words;
    if path.len() > PATH {
        return None;
    }
    let answer = match (error, u32::try_from(kind).ok()?) {
        (0, PROCESS) => Ok(Found::Process(Process {
            start,
            parent: u32::try_from(parent).ok()?,
            device: (u32::try_from(device >> 32).ok()?, device as u32),
            inode,
            mounts,
            link: path.to_vec(),
        })),
        (0, CGROUP) => Ok(Found::Cgroup(path.to_vec())),
        (0, NETNS) => Ok(Found::Netns(start)),
        (0, _) => return None,
        (error, _) => Err(i32::try_from(error).ok()?),
    };
    Some((head as u32, usize::try_from(head >> 32).ok()?, answer))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request() -> impl Strategy<Value = Request> {
        prop_oneof![
            any::<u32>().prop_map(Request::Process),
            any::<u64>().prop_map(Request::Cgroup),
            any::<u32>().prop_map(Request::Netns),
        ]
    }

    fn found() -> impl Strategy<Value = Found> {
        let path = || prop::collection::vec(any::<u8>(), 0..200);
        let process = (any::<(u64, u32, (u32, u32), u64, u64)>(), path()).prop_map(|(numbers, link)| {
            let (start, parent, device, inode, mounts) = numbers;
            Found::Process(Process { start, parent, device, inode, mounts, link })
        });
        prop_oneof![process, path().prop_map(Found::Cgroup), any::<u64>().prop_map(Found::Netns)]
    }

    proptest! {
        #[test]
        fn what_goes_out_comes_in(sequence: u32, requests in prop::collection::vec(request(), 0..=MOST), index in 0..MOST,
                                  found in found(), error in 1..200_i32) {
            prop_assert_eq!(decode(&encode(sequence, &requests)), Some((sequence, requests)));
            for answer in [Ok(found), Err(error)] {
                let bytes = encode_answer(sequence, index, &answer);
                prop_assert!(bytes.len() <= LONGEST);
                prop_assert_eq!(decode_answer(&bytes), Some((sequence, index, answer)));
            }
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..LONGEST + 10), kind in 0..5_u8) {
            let _ = decode_answer(&bytes);
            bytes.resize(REQUESTS, 0);
            bytes[4..8].copy_from_slice(&[1, 0, 0, 0]);
            bytes[8..16].copy_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 0]);
            if let Some((_, requests)) = decode(&bytes) {
                prop_assert_eq!(requests.len(), 1);
            }
        }
    }
}
