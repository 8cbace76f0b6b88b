//! Any bytes as a request: no panic; where JSON comes out, it is one line of JSON that acts on no terminal; and the way in one
//! pass and the way through pieces give the same.

#![no_main]

use flowtel::{escape::acts, export::json::Transcoder};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut transcoder = Transcoder::default();
    let mut first = Vec::new();
    let result = transcoder.write(data, &mut first, &mut |_| Ok(()));
    let (mut rest, mut pieces) = (Vec::new(), Vec::new());
    let again = transcoder.write(data, &mut rest, &mut |piece| {
        pieces.append(piece);
        Ok(())
    });
    assert_eq!(result.is_ok(), again.is_ok());
    if result.is_err() {
        return;
    }
    pieces.append(&mut rest);
    assert_eq!(first, pieces);
    let line = String::from_utf8(first).expect("UTF-8");
    assert!(!line.chars().any(acts));
    let json: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert!(json["resourceLogs"].is_array());
});
