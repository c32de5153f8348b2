//! Whether a JPEG file is whole. The decoder fills what is missing with grey instead of saying so.

/// Start of image.
const SOI: u8 = 0xd8;
/// End of image.
const EOI: u8 = 0xd9;
/// Start of scan: entropy-coded data follows the segment.
const SOS: u8 = 0xda;

/// Whether the segments, followed one by one, reach the end-of-image marker. Segments are stepped over by their length,
/// so that the marker of an embedded preview does not count.
pub(crate) fn is_complete(bytes: &[u8]) -> bool {
    walk(bytes).is_some()
}

fn walk(bytes: &[u8]) -> Option<()> {
    let mut rest = bytes.strip_prefix(&[0xff, SOI])?;
    loop {
        // Any number of 0xff may precede a marker.
        let start = rest.iter().position(|&byte| byte == 0xff)?;
        rest = rest.get(start..)?;
        let skip = rest.iter().position(|&byte| byte != 0xff)?;
        let marker = *rest.get(skip)?;
        rest = rest.get(skip + 1..)?;
        match marker {
            EOI => return Some(()),
            // A stuffed zero and the restart markers belong to the entropy-coded data; these markers have no length.
            0x00 | 0x01 | 0xd0..=0xd7 | SOI => {}
            _ => {
                let &[high, low, ..] = rest else { return None };
                rest = rest.get(usize::from(u16::from_be_bytes([high, low])).max(2)..)?;
                if marker == SOS && rest.is_empty() {
                    return None;
                }
            }
        }
    }
}
