//! Seeds in settings: every number of 64 bits, also in TOML, which holds numbers up to 2^63 - 1. A larger one stands there as text.
//!
//! For `#[serde(with = "gmflow_files::seed")]`.
//!
//! ```
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Settings {
//!     #[serde(with = "gmflow_files::seed")]
//!     seed: u64,
//! }
//!
//! let text = toml::to_string(&Settings { seed: u64::MAX })?;
//! assert_eq!(toml::from_str::<Settings>(&text)?.seed, u64::MAX);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use serde::de::{Deserializer, Error, Unexpected, Visitor};
use serde::ser::Serializer;

/// What is expected, in messages.
const EXPECTED: &str = "a whole number from 0 to 18446744073709551615 (above 9223372036854775807 in quotes)";

/// Writes a number, or text where TOML has no such number.
///
/// # Errors
/// Those of the writer.
pub fn serialize<S: Serializer>(seed: &u64, writer: S) -> Result<S::Ok, S::Error> {
    match i64::try_from(*seed) {
        Ok(seed) => writer.serialize_i64(seed),
        Err(_) => writer.serialize_str(&seed.to_string()),
    }
}

/// Reads a number, or a number in text.
///
/// # Errors
/// Those of the reader; a number that is negative, has a fraction or is larger than 2^64 - 1.
pub fn deserialize<'de, D: Deserializer<'de>>(reader: D) -> Result<u64, D::Error> {
    reader.deserialize_any(Seed)
}

struct Seed;

impl Visitor<'_> for Seed {
    type Value = u64;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<u64, E> {
        Ok(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<u64, E> {
        u64::try_from(value).map_err(|_| E::invalid_value(Unexpected::Signed(value), &self))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<u64, E> {
        let digits = value.trim().replace('_', "");
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse().ok().filter(|_| plain);
        number.ok_or_else(|| E::invalid_value(Unexpected::Str(value), &self))
    }
}

#[cfg(test)]
mod tests {
    use crate::{json, toml};
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct File {
        #[serde(with = "super")]
        seed: u64,
    }

    #[test]
    fn every_seed_survives_both_formats() {
        for seed in [0, 7, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
            let text = ::toml::to_string(&File { seed }).unwrap();
            assert_eq!(toml::table(&text).and_then(toml::settings::<File>).unwrap(), File { seed }, "{text}");
            let text = serde_json::to_vec(&File { seed }).unwrap();
            assert_eq!(json::read::<File>(&text).unwrap(), File { seed });
        }
        assert_eq!(json::read::<File>(b"{\"seed\": 18446744073709551615}").unwrap().seed, u64::MAX);
        for text in ["seed = -1", "seed = 1.5", "seed = '18446744073709551616'", "seed = 'x'", "seed = '+1'"] {
            let message = toml::table(text).and_then(toml::settings::<File>).unwrap_err().to_string();
            assert!(message.starts_with("seed: expected a whole number from 0 to 18446744073709551615"), "{message}");
        }
    }
}
