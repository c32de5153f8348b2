//! Sizes and checksums of files: damage that a format cannot see is found before it is used.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// Bytes that are read at a time.
const BUFFER: usize = 1 << 20;

/// The size and the CRC-32C of a file. A file with damage in it has, but for one chance in four billion, another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDigest {
    /// The size in bytes.
    pub bytes: u64,
    /// The CRC-32C (Castagnoli) of the bytes.
    pub crc32c: u32,
}

/// The digests of a folder's files by their names.
pub type Digests = BTreeMap<String, FileDigest>;

impl FileDigest {
    /// The digest of these bytes.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let mut digest = Self::default();
        digest.add(bytes);
        digest
    }

    /// The digest of a file as it is now.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`].
    pub fn of_file(path: &Path) -> Result<Self> {
        let io = |error| Error::io(path, error);
        let mut file = File::open(path).map_err(io)?;
        let (mut digest, mut buffer) = (Self::default(), vec![0; BUFFER]);
        loop {
            match file.read(&mut buffer).map_err(io)? {
                0 => return Ok(digest),
                count => digest.add(buffer.get(..count).unwrap_or_default()),
            }
        }
    }

    /// Checks that a file is as it was when this digest was made.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] where it cannot be read, [`crate::FilesError::File`] where its size or its content is another.
    pub fn verify(&self, path: &Path) -> Result<()> {
        let size = std::fs::metadata(path).map_err(|error| Error::io(path, error))?.len();
        if size != self.bytes {
            return Err(Error::file(path, "size", format!("{} bytes, as were written", self.bytes), size));
        }
        let found = Self::of_file(path)?;
        if found != *self {
            let expected = format!("{:08x}, as was written", self.crc32c);
            let got = format!(
                "{:08x}: the file is damaged or was changed (--no-verify reads it all the same)",
                found.crc32c
            );
            return Err(Error::file(path, "checksum", expected, got));
        }
        Ok(())
    }

    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
    }
}

/// A writer that makes the digest of what passes through it.
#[derive(Debug)]
pub(super) struct Digesting<W> {
    pub(super) inner: W,
    pub(super) digest: FileDigest,
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.digest.add(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        // RFC 3720, appendix B.4: 32 bytes of zeros; and the usual check value.
        assert_eq!(FileDigest::of_bytes(&[0; 32]), FileDigest { bytes: 32, crc32c: 0x8a91_36aa });
        assert_eq!(FileDigest::of_bytes(b"123456789").crc32c, 0xe306_9283);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..300u32).map(|i| (i * 7) as u8).collect();
        let digest = FileDigest::of_bytes(&bytes);
        std::fs::write(&path, &bytes).unwrap();
        digest.verify(&path).unwrap();
        for bit in 0..8 * bytes.len() {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, damaged).unwrap();
            let message = digest.verify(&path).unwrap_err().to_string();
            assert!(message.contains("file: checksum: expected"), "{message}");
        }
        std::fs::write(&path, &bytes[..299]).unwrap();
        let message = digest.verify(&path).unwrap_err().to_string();
        assert!(message.contains("size: expected 300 bytes, as were written, got 299"), "{message}");
    }
}
