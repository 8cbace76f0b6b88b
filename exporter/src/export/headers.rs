//! The headers of each request: those of the settings, and over them those of a file, which is read again when it changed.
//!
//! The file is looked at before a request, at most once a second. One that can't be read any more, or not as headers, is
//! told once, and what it said before goes on to be sent: a token that is still good must not be lost to a mistake.
//! Must never show a value.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::HeaderMap;

use super::{BuildError, Settings, build};
use crate::config::{Secret, header_pair};

/// How often the file is looked at, at most.
const LOOK: Duration = Duration::from_secs(1);
/// The most of it that is read, in bytes.
const MAX_FILE: u64 = 64 << 10;
/// The most headers in it.
const MAX_HEADERS: usize = 64;

/// The headers of a receiver's requests.
#[derive(Debug)]
pub struct Headers {
    fixed: HeaderMap,
    file: Option<Watched>,
}

#[derive(Debug)]
struct Watched {
    path: PathBuf,
    now: Mutex<Now>,
}

/// What holds now.
#[derive(Debug)]
struct Now {
    /// All headers.
    headers: HeaderMap,
    looked: Instant,
    /// What was read last, or tried; `None`: nothing was there.
    version: Option<Version>,
}

/// By which a changed file is known: another one in its place, or written to.
type Version = (u64, u64, u64, i64, i64);

// === impl Headers

impl Headers {
    /// Reads the file, where there is one.
    pub(super) fn build(settings: &Settings) -> Result<Self, BuildError> {
        let fixed = build::headers(settings)?;
        let watched = |path: &PathBuf| -> Result<Watched, BuildError> {
            let error = |why| BuildError::HeadersFile { path: path.clone(), why };
            let (headers, version) = read(path, &fixed).map_err(error)?;
            let now = Now { headers, looked: Instant::now(), version: Some(version) };
            Ok(Watched { path: path.clone(), now: Mutex::new(now) })
        };
        let file = settings.headers_file.as_ref().map(watched).transpose()?;
        Ok(Self { fixed, file })
    }

    /// As they are now.
    pub fn current(&self) -> HeaderMap {
        let Some(Watched { path, now }) = &self.file else { return self.fixed.clone() };
        let mut now = now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.looked.elapsed() >= LOOK {
            now.looked = Instant::now();
            now.look(path, &self.fixed);
        }
        now.headers.clone()
    }
}

// === impl Now

impl Now {
    fn look(&mut self, path: &Path, fixed: &HeaderMap) {
        let there = fs::metadata(path).ok().as_ref().map(version);
        if there == self.version {
            return;
        }
        self.version = there;
        match read(path, fixed) {
            Ok((headers, version)) => {
                (self.headers, self.version) = (headers, Some(version));
                tracing::info!(path = %path.display(), "the file of headers has changed and was read again");
            }
            Err(error) => tracing::warn!(
                path = %path.display(),
                error,
                "the file of headers can't be used; what it said before goes on to be sent"
            ),
        }
    }
}

/// The headers with those of the file over them.
fn read(path: &Path, fixed: &HeaderMap) -> Result<(HeaderMap, Version), String> {
    let read = || -> io::Result<_> {
        // A pipe or a device could hold up whoever reads it. (Links are followed: so orchestrators renew secrets.)
        let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let there = file.metadata()?;
        if !there.is_file() {
            return Err(io::Error::other("this is no regular file"));
        }
        let version = version(&there);
        let mut text = String::new();
        file.by_ref().take(MAX_FILE + 1).read_to_string(&mut text)?;
        Ok((text, version))
    };
    let (text, version) = read().map_err(|e| format!("cannot be read: {e}"))?;
    if text.len() as u64 > MAX_FILE {
        return Err(format!("has more than {MAX_FILE} bytes"));
    }
    let mut headers = fixed.clone();
    for (name, value) in parse(&text)? {
        headers.insert(name, value);
    }
    Ok((headers, version))
}

/// `name: value` a line; empty lines and those that begin with # say nothing. Errors name the line and quote nothing.
fn parse(text: &str) -> Result<Vec<(http::HeaderName, http::HeaderValue)>, String> {
    let mut pairs = Vec::new();
    for (n, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| format!("line {n} is no `name: value`"))?;
        let pair = header_pair("export.headers_file", name.trim(), &Secret::new(value.trim()));
        pairs.push(pair.map_err(|e| format!("line {n}: {}", e.message))?);
        if pairs.len() > MAX_HEADERS {
            return Err(format!("has more than {MAX_HEADERS} headers"));
        }
    }
    Ok(pairs)
}

fn version(file: &Metadata) -> Version {
    (file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_headers_and_what_is_none_is_told_by_its_number_alone() {
        let pairs = parse("# a token\n\n  Authorization:  Bearer a:b \nx-scope-orgid:tenant\r\n").expect("headers");
        let texts: Vec<_> = pairs.iter().map(|(k, v)| (k.as_str(), v.to_str().expect("ASCII"))).collect();
        assert_eq!(texts, [("authorization", "Bearer a:b"), ("x-scope-orgid", "tenant")]);
        assert!(pairs.iter().all(|(_, value)| value.is_sensitive()));
        for (text, words) in [
            ("a: b\nhunter2", "line 2 is no"),
            ("hunter 2: x", "line 1: expected a header name"),
            ("content-type: hunter2", "line 1: this header belongs"),
            ("a: hunter2\u{1}", "line 1: the value has characters"),
        ] {
            let error = parse(text).expect_err("it is wrong");
            assert!(error.contains(words) && !error.contains("hunter"), "{error}");
        }
        assert!(parse(&"a: b\n".repeat(MAX_HEADERS + 1)).is_err_and(|e| e.contains("more than 64")));
    }
}
