//! ClientHellos for tests, field by field.

/// What goes into one.
#[derive(Debug, Clone)]
pub struct Sample {
    pub version: u16,
    pub ciphers: Vec<u16>,
    pub extensions: Vec<(u16, Vec<u8>)>,
}

fn with_length(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("short");
    [&length.to_be_bytes()[..], bytes].concat()
}

fn numbers(values: &[u16]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// Extension server_name.
pub fn server_name(name: &[u8]) -> (u16, Vec<u8>) {
    (0, with_length(&[&[0][..], &with_length(name)].concat()))
}

/// Extension ALPN.
pub fn protocols(names: &[&[u8]]) -> (u16, Vec<u8>) {
    let list: Vec<u8> =
        names.iter().flat_map(|name| [&[u8::try_from(name.len()).expect("short")][..], name].concat()).collect();
    (16, with_length(&list))
}

/// Extension supported_versions.
pub fn versions(values: &[u16]) -> (u16, Vec<u8>) {
    let list = numbers(values);
    (43, [&[u8::try_from(list.len()).expect("short")][..], &list].concat())
}

/// Extension signature_algorithms.
pub fn signatures(values: &[u16]) -> (u16, Vec<u8>) {
    (13, with_length(&numbers(values)))
}

impl Sample {
    /// As a browser would send it, for this name.
    pub fn new(name: &str) -> Self {
        Self {
            version: 0x0303,
            ciphers: vec![0x1a1a, 0x1301, 0x1302, 0xc02b],
            extensions: vec![
                (0x2a2a, vec![]),
                server_name(name.as_bytes()),
                protocols(&[b"h2", b"http/1.1"]),
                versions(&[0x3a3a, 0x0304, 0x0303]),
                signatures(&[0x0403, 0x0804]),
                (51, vec![0; 40]),
            ],
        }
    }

    /// With one more extension.
    pub fn and(mut self, extension: (u16, Vec<u8>)) -> Self {
        self.extensions.push(extension);
        self
    }

    /// The handshake message.
    pub fn message(&self) -> Vec<u8> {
        let extensions: Vec<u8> = self
            .extensions
            .iter()
            .flat_map(|(kind, content)| [&kind.to_be_bytes()[..], &with_length(content)].concat())
            .collect();
        let extensions = if self.extensions.is_empty() { vec![] } else { with_length(&extensions) };
        let body = [
            &self.version.to_be_bytes()[..],
            &[7; 32],
            &[32],
            &[9; 32],
            &with_length(&numbers(&self.ciphers)),
            &[1, 0],
            &extensions,
        ]
        .concat();
        let length = u32::try_from(body.len()).expect("short").to_be_bytes();
        [&[1][..], &length[1..], &body].concat()
    }

    /// In records of at most so many bytes each.
    pub fn records(&self, most: usize) -> Vec<u8> {
        let record = |part: &[u8]| [&[22, 3, 1][..], &with_length(part)].concat();
        self.message().chunks(most.max(1)).flat_map(record).collect()
    }

    /// In one record.
    pub fn bytes(&self) -> Vec<u8> {
        self.records(1 << 14)
    }
}
