//! Text from files: UTF-8, with or without a byte order mark.
//!
//! ```
//! use gmflow_files::text;
//!
//! assert_eq!(text::decode(b"\xef\xbb\xbflr = 1e-3")?, "lr = 1e-3");
//! assert!(text::decode(&[0xff, 0xfe, 0x00]).is_err());
//! # Ok::<(), gmflow_files::Wrong>(())
//! ```

use crate::regular::refuse_no_file;
use crate::{Wrong, what_is};
use std::path::Path;

/// What [`what_is`] calls text.
const IS_TEXT: [&str; 3] =
    ["a text file", "a JSON text", "text with a byte order mark (save it as UTF-8 without one)"];
/// What the text was expected to be, in messages.
const EXPECTED: &str = "text in UTF-8";

/// The text of a file in UTF-8; a byte order mark at the beginning is left out.
///
/// # Errors
/// [`Wrong`] where the bytes are no UTF-8, with what they are (UTF-16, Latin-1, an archive...) and where.
pub fn decode(bytes: &[u8]) -> Result<&str, Wrong> {
    let body = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let wrong = |got: &str| Wrong::new("content", EXPECTED, got);
    if is_wide(bytes) {
        return Err(wrong("text in UTF-16 or UTF-32 (save it as UTF-8)"));
    }
    let error = match std::str::from_utf8(body) {
        Ok(text) => return Ok(text),
        Err(error) => error,
    };
    let is_control = |byte: &u8| *byte < b' ' && !byte.is_ascii_whitespace();
    match what_is(bytes) {
        Some(what) if !IS_TEXT.contains(&what) => Err(wrong(what)),
        _ if body.iter().any(is_control) => Err(wrong("a binary file")),
        _ => {
            let line = body[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            let byte = body.get(error.valid_up_to()).copied().unwrap_or_default();
            let got = format!("the byte 0x{byte:02x}, as in Latin-1 or Windows-1252 (save the file as UTF-8)");
            Err(Wrong::new(format!("line {line}"), EXPECTED, got))
        }
    }
}

/// [`decode`] of the file at `path`.
///
/// # Errors
/// The outer error where the file cannot be read, or is a pipe or a device; the inner one as [`decode`].
pub fn read(path: &Path) -> std::io::Result<Result<String, Wrong>> {
    refuse_no_file(path)?;
    Ok(decode(&std::fs::read(path)?).map(str::to_owned))
}

/// Whether this is text in UTF-16 or UTF-32: by its byte order mark, or by the zeros in every character of plain English.
fn is_wide(bytes: &[u8]) -> bool {
    /// Bytes at the beginning that are looked at.
    const LOOKED_AT: usize = 64;
    let start = &bytes[..bytes.len().min(LOOKED_AT) / 2 * 2];
    let zeros = |odd: usize| start.iter().skip(odd).step_by(2).filter(|byte| **byte == 0).count();
    let plain = |odd: usize| start.iter().skip(odd).step_by(2).all(|byte| byte.is_ascii() && *byte != 0);
    let alternates = |zero: usize| start.len() >= 8 && zeros(zero) * 2 == start.len() && plain(1 - zero);
    bytes.starts_with(b"\xff\xfe")
        || bytes.starts_with(b"\xfe\xff")
        || bytes.starts_with(b"\0\0\xfe\xff")
        || alternates(0)
        || alternates(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_left_out_and_other_encodings_are_named() {
        assert_eq!(decode(b"\xef\xbb\xbfx = 1").unwrap(), "x = 1");
        assert_eq!(decode("größe".as_bytes()).unwrap(), "größe");
        for text in ["\u{feff}x = 1", "[data]\nname = 'x'\n"] {
            let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let message = decode(&wide).unwrap_err().to_string();
            assert!(message.contains("UTF-16") && message.contains("save it as UTF-8"), "{message}");
        }
        let message = decode(b"a = 1\n# Gr\xf6\xdfe\n").unwrap_err().to_string();
        assert!(message.starts_with("line 2:") && message.contains("Latin-1"), "{message}");
        let message = decode(b"PK\x03\x04\xff\xff").unwrap_err().to_string();
        assert!(message.contains("a ZIP archive"), "{message}");
        assert!(decode(b"{\"a\": \"\xf6\"}").unwrap_err().to_string().contains("as in Latin-1"));
        assert!(decode(b"a\x01\xff").unwrap_err().to_string().contains("a binary file"));
    }
}
