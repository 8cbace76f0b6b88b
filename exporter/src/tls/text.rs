//! Names of the network as text fit for a record.

/// The longest name that is given, bytes of text.
const MOST: usize = 255;

/// A server's name: lower case, without the root's dot; `None` where it is empty or too long.
pub fn server_name(name: &[u8]) -> Option<String> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    escaped(&name.to_ascii_lowercase())
}

/// A protocol's name.
pub fn protocol(name: &[u8]) -> Option<String> {
    escaped(name)
}

/// What is no visible ASCII character becomes `\DDD`, as in names of the DNS (RFC 4343, 2.1).
fn escaped(bytes: &[u8]) -> Option<String> {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\\' => out.push_str("\\\\"),
            0x21..=0x7e => out.push(char::from(*byte)),
            _ => out.push_str(&format!("\\{byte:03}")),
        }
        if out.len() > MOST {
            return None;
        }
    }
    (!out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_and_odd_bytes_escaped() {
        assert_eq!(server_name(b"WWW.Example.COM.").as_deref(), Some("www.example.com"));
        assert_eq!(server_name(b"a b\x1b\\\xff").as_deref(), Some(r"a\032b\027\\\255"));
        assert_eq!(protocol(b"http/1.1").as_deref(), Some("http/1.1"));
        assert_eq!([server_name(b""), server_name(b"."), server_name(&[b'a'; 256])], [None, None, None]);
        assert!(server_name(&[b'a'; 255]).is_some());
    }
}
