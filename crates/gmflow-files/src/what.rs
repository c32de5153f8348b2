//! What a file really is.

/// Content that starts with these bytes.
const STARTS: &[(&[u8], &str)] = &[
    (b"version https://git-lfs.github.com/spec/", LFS),
    (b"version https://hawser.github.com/spec/", LFS),
    (b"# xet version ", "a Xet pointer in place of the file (download the file itself)"),
    (b"/annex/objects/", "a git-annex pointer in place of the file (run `git annex get`)"),
    (b"\xff\xfe", "text in UTF-16 (save it as UTF-8)"),
    (b"\xfe\xff", "text in UTF-16 (save it as UTF-8)"),
    (b"\x00\x05\x16\x07", "an AppleDouble file, which macOS writes beside the real one"),
    (b"\x00\x05\x16\x00", "an AppleSingle file"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"8BPS", "a Photoshop image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (b"qoif", "a QOI image"),
    (b"\x00\x00\x01\x00", "an icon file"),
    (b"v/1\x01", "an OpenEXR image"),
    (b"#?RADIANCE", "a Radiance image"),
    (b"DDS ", "a DDS texture"),
    (b"%PDF-", "a PDF document"),
    (b"%!PS", "a PostScript document"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"ORC", "an ORC file"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"MATLAB 5.0", "a MATLAB file"),
    (b"GGUF", "a GGUF file"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\x1f\x8b", "a gzip file (decompress it first)"),
    (b"\xfd7zXZ\0", "an xz file (decompress it first)"),
    (b"\x28\xb5\x2f\xfd", "a zstd file (decompress it first)"),
    (b"BZh", "a bzip2 file (decompress it first)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a Windows program"),
    (b"OggS", "an Ogg file"),
    (b"ID3", "an MP3 file"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
];

const LFS: &str = "a Git LFS pointer in place of the file (run `git lfs pull`)";

/// The first bytes of a file that [`what_is`] needs at most.
const ENOUGH: usize = 512;

/// What a file is by its first bytes, for a message about a file that is not what it should be. `start` is the whole file or at
/// least its first 512 bytes; an empty slice is an empty file. `None` for content that is not recognised.
///
/// ```
/// use gmflow_files::what_is;
///
/// let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n";
/// assert_eq!(what_is(pointer), Some("a Git LFS pointer in place of the file (run `git lfs pull`)"));
/// assert_eq!(what_is(b"<!DOCTYPE html><html>"), Some("an HTML page in place of the file (was the download refused?)"));
/// assert_eq!(what_is(b""), Some("an empty file"));
/// assert_eq!(what_is(&[7, 1, 200, 9]), None);
/// ```
pub fn what_is(start: &[u8]) -> Option<&'static str> {
    let start = start.get(..ENOUGH).unwrap_or(start);
    if start.is_empty() {
        return Some("an empty file");
    }
    if start.len() >= 4 && start.iter().all(|byte| *byte == 0) {
        return Some("zero bytes (an interrupted copy or download?)");
    }
    let known = STARTS.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, what)| *what);
    known.or_else(|| container(start)).or_else(|| text(start))
}

/// Formats that are known by bytes further in.
fn container(start: &[u8]) -> Option<&'static str> {
    let at = |offset: usize, length: usize| start.get(offset..offset + length).unwrap_or_default();
    match (at(0, 4), at(4, 4), at(8, 4)) {
        (b"RIFF", _, b"WEBP") => return Some("a WebP image"),
        (b"RIFF", _, _) => return Some("a RIFF file (sound or video)"),
        (_, b"ftyp", b"avif" | b"avis") => return Some("an AVIF image"),
        (_, b"ftyp", b"heic" | b"heix" | b"hevc" | b"heim" | b"heis" | b"mif1" | b"msf1") => {
            return Some("an HEIC image");
        }
        (_, b"ftyp", _) => return Some("a video (MP4 or QuickTime)"),
        _ => {}
    }
    // Of a bitmap, the reserved bytes are zero and the header's size is one of the known ones.
    let header = at(14, 4).first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    if start.starts_with(b"BM") && at(6, 4) == [0; 4] && header.is_some_and(|size| (12..=124).contains(&size)) {
        return Some("a BMP image");
    }
    if at(257, 5) == b"ustar" {
        return Some("a tar archive");
    }
    // The length of the header, then the header as JSON.
    let length = start.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    if length.is_some_and(|length| (2..1 << 32).contains(&length)) && at(8, 1) == b"{" {
        return Some("a safetensors file");
    }
    if start.starts_with(b"PK\x03\x04") {
        return archive(start);
    }
    match start {
        [0x80, 2..=5, ..] => Some("a Python pickle (`gmflow import` turns one of weights into safetensors)"),
        [0, 0, 8..=14, 1..=4, ..] => Some("an IDX file"),
        [b'P', b'1'..=b'7', b' ' | b'\t' | b'\r' | b'\n' | b'#', ..] => Some("a PNM image"),
        _ => None,
    }
}

/// What a ZIP archive holds, by the name of its first entry.
fn archive(start: &[u8]) -> Option<&'static str> {
    let length =
        start.get(26..28).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u16::from_le_bytes(*bytes));
    let name = start.get(30..).map(|rest| &rest[..rest.len().min(usize::from(length))]).unwrap_or_default();
    Some(if name.ends_with(b".npy") {
        "a NumPy archive (.npz)"
    } else if [&b"/data.pkl"[..], b"/byteorder", b"/version", b"/.format_version"]
        .iter()
        .any(|end| name.ends_with(end))
    {
        "a PyTorch file (`gmflow import` turns it into safetensors)"
    } else {
        "a ZIP archive"
    })
}

/// Kinds of text.
fn text(start: &[u8]) -> Option<&'static str> {
    let (bom, start) = match start.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => (true, rest),
        None => (false, start),
    };
    // The last character may be cut.
    let valid = match str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if start.len() - error.valid_up_to() < 4 => {
            str::from_utf8(start.get(..error.valid_up_to())?).unwrap_or_default()
        }
        Err(_) => return None,
    };
    if valid.is_empty() || valid.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        return None;
    }
    let lower = valid.trim_start().to_ascii_lowercase();
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| lower.starts_with(prefix));
    Some(if starts(&["<!doctype html", "<html", "<head", "<body"]) || lower.contains("<html") {
        "an HTML page in place of the file (was the download refused?)"
    } else if lower.contains("<svg") {
        "an SVG drawing"
    } else if starts(&["<?xml", "<error"]) {
        "an XML text in place of the file (was the download refused?)"
    } else if starts(&["{", "["]) {
        "a JSON text"
    } else if bom {
        "text with a byte order mark (save it as UTF-8 without one)"
    } else {
        "a text file"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_place_of_a_file_is_named() {
        let mut tar = vec![b'a'; 512];
        tar[257..262].copy_from_slice(b"ustar");
        let zip = |name: &[u8]| {
            [b"PK\x03\x04", &[0; 22][..], &(name.len() as u16).to_le_bytes(), &[0; 2], name, b"more"].concat()
        };
        let mut bitmap = b"BM\x36\x30\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
        bitmap.extend([0; 20]);
        let cases: [(&[u8], Option<&str>); 25] = [
            (b"", Some("an empty file")),
            (&[0; 100], Some("zero bytes")),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", Some("Git LFS")),
            (b"\n\n <!doctype HTML>\n<html lang='en'>", Some("HTML")),
            (b"<!-- page --><html>", Some("HTML")),
            (b"\xef\xbb\xbf<html>", Some("HTML")),
            (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", Some("XML")),
            (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'>", Some("SVG")),
            (b"{\"error\": \"Invalid credentials\"}", Some("JSON")),
            (b"Entry not found", Some("a text file")),
            (b"\xff\xfe{\0\n\0", Some("UTF-16")),
            (b"\xef\xbb\xbf[train]", Some("JSON")),
            (b"\xef\xbb\xbfsteps = 1", Some("byte order mark")),
            (b"PK\x03\x04\x14\0", Some("ZIP")),
            (&zip(b"archive/data.pkl"), Some("a PyTorch file")),
            (&zip(b"samples.npy"), Some("NumPy")),
            (&zip(b"notes.txt"), Some("a ZIP archive")),
            (b"\x80\x02}q\0", Some("pickle")),
            (b"\x10\0\0\0\0\0\0\0{\"a\":{}}", Some("safetensors")),
            (b"RIFF\x10\0\0\0WEBPVP8 ", Some("WebP")),
            (b"\0\0\0\x20ftypheic", Some("HEIC")),
            (&tar, Some("tar")),
            (&bitmap, Some("BMP")),
            (b"BM, a text that starts like a bitmap", Some("a text file")),
            (&[200, 1, 3, 77, 0, 9], None),
        ];
        for (bytes, expected) in cases {
            match (what_is(bytes), expected) {
                (Some(got), Some(expected)) => assert!(got.contains(expected), "{got} of {}", bytes.escape_ascii()),
                (got, expected) => assert_eq!(got, expected, "{}", bytes.escape_ascii()),
            }
        }
    }

    #[test]
    fn text_may_be_cut_within_a_character() {
        let mut text = "ä".repeat(300).into_bytes();
        text.insert(0, b'a');
        assert_eq!(what_is(&text), Some("a text file"));
    }
}
