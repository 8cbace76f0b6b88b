//! The settings of `record.hash` in, the key's bytes out. Must never show the key, nor what stands in its file.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::config;

/// The least bytes of a key: fewer can be guessed.
const LEAST: usize = 16;
/// The most bytes of the file.
const MOST: u64 = 4096;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file can't be read, or holds something else.
    #[error("record.hash.key_file: {path} {why}; no record is made without the key")]
    File {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The text of the setting is too short.
    #[error("record.hash.key: expected at least {LEAST} bytes; `openssl rand -hex 32` makes a good key")]
    Short,
}

/// The key, where one is set.
pub(super) fn read(hash: &config::Hash) -> Result<Option<Vec<u8>>, KeyError> {
    if let Some(path) = &hash.key_file {
        let key = from_file(path).map_err(|why| KeyError::File { path: path.clone(), why })?;
        return Ok(Some(key));
    }
    let Some(key) = &hash.key else { return Ok(None) };
    let key = key.expose().as_bytes();
    if key.len() < LEAST { Err(KeyError::Short) } else { Ok(Some(key.to_vec())) }
}

fn from_file(path: &Path) -> Result<Vec<u8>, String> {
    let read = || -> io::Result<Vec<u8>> {
        // A pipe or a device could hold up whoever reads it. Links are followed: so orchestrators renew secrets.
        let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("this is no regular file"));
        }
        let mut bytes = Vec::new();
        file.by_ref().take(MOST + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let mut key = read().map_err(|e| format!("cannot be read: {e}"))?;
    if key.len() as u64 > MOST {
        return Err(format!("has more than {MOST} bytes"));
    }
    if key.last() == Some(&b'\n') {
        key.pop();
        if key.last() == Some(&b'\r') {
            key.pop();
        }
    }
    if key.len() < LEAST { Err(format!("holds fewer than {LEAST} bytes")) } else { Ok(key) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn the_key_is_what_the_file_holds_without_its_line_end_and_nothing_of_it_is_shown() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        let of = |content: &[u8]| {
            std::fs::write(&path, content).expect("a file");
            read(&config::Hash { key_file: Some(path.clone()), ..Default::default() })
        };
        for end in ["", "\n", "\r\n"] {
            let key = of(format!("hunter2hunter2hunter2{end}").as_bytes()).expect("a key");
            assert_eq!(key.as_deref(), Some(&b"hunter2hunter2hunter2"[..]));
        }
        for content in [&b""[..], b"hunter2\n", &[b'h'; 5000]] {
            let error = of(content).expect_err("no key").to_string();
            assert!(error.contains("record.hash.key_file") && !error.contains("hunter2"), "{error}");
        }
        let missing = config::Hash { key_file: Some("/nowhere/key".into()), ..Default::default() };
        assert!(read(&missing).is_err_and(|e| e.to_string().contains("/nowhere/key cannot be read")));
        let short = config::Hash { key: Some(Secret::new("hunter2")), ..Default::default() };
        assert!(read(&short).is_err_and(|e| !format!("{e} {e:?}").contains("hunter2")));
        let set = config::Hash { key: Some(Secret::new("0123456789abcdef")), ..Default::default() };
        assert_eq!(read(&set).expect("a key").as_deref(), Some(&b"0123456789abcdef"[..]));
    }

    #[test]
    fn what_is_no_regular_file_is_no_key() {
        let hash = config::Hash { key_file: Some("/dev/zero".into()), ..Default::default() };
        assert!(read(&hash).is_err_and(|e| e.to_string().contains("no regular file")));
    }
}
