//! The header of a safetensors file, and what is wrong with one in plain words.

use gmflow_files::{Wrong, json, what_is};
use safetensors::SafeTensorError;
use safetensors::tensor::{Metadata, SafeTensors};

/// Bytes of the header's length, with which a safetensors file starts.
const LENGTH_BYTES: usize = 8;
/// What the file was expected to be.
const EXPECTED: &str = "a complete safetensors file";

/// The length of the header of a file with these bytes, and what it says.
///
/// # Errors
/// [`Wrong`] where this is no safetensors file, with what it is, or where it is cut short or damaged; a name that stands twice.
pub fn read(bytes: &[u8]) -> Result<(usize, Metadata), Wrong> {
    let what = what_is(bytes);
    if let Some(what) = what.filter(|what| *what != "a safetensors file" && !begins_like_one(bytes)) {
        return Err(Wrong::new("content", "a safetensors file", what));
    }
    // Of two tensors with one name the reader would take one without a word.
    let text = header_text(bytes).unwrap_or_default();
    if !text.is_empty()
        && let Err(wrong) = json::value(text)
    {
        return Err(Wrong { field: format!("header: {}", wrong.field), ..wrong });
    }
    SafeTensors::read_metadata(bytes).map_err(|error| plain(bytes, text, &error))
}

/// The bytes of the header, where it is whole.
fn header_text(bytes: &[u8]) -> Option<&[u8]> {
    let length = usize::try_from(u64::from_le_bytes(*bytes.first_chunk()?)).ok()?;
    bytes.get(LENGTH_BYTES..LENGTH_BYTES.checked_add(length)?)
}

/// Whether a header follows its length, whatever the length is.
fn begins_like_one(bytes: &[u8]) -> bool {
    let after = bytes.get(LENGTH_BYTES..).unwrap_or_default();
    header_text(bytes).is_some() && after.trim_ascii_start().starts_with(b"{")
}

/// What the reader says, without its names for types.
fn plain(bytes: &[u8], text: &[u8], error: &SafeTensorError) -> Wrong {
    let header = |got: String| Wrong::new("header", EXPECTED, got);
    match error {
        SafeTensorError::HeaderTooSmall => header(format!("{} bytes", bytes.len())),
        SafeTensorError::HeaderTooLarge => header("a header of more than 100 MB".into()),
        SafeTensorError::InvalidHeaderLength => header("less than its header says: it is cut short".into()),
        SafeTensorError::InvalidHeader(_) => header("a header that is no text in UTF-8".into()),
        SafeTensorError::InvalidHeaderDeserialization(_) | SafeTensorError::JsonError(_) => bad_entry(text),
        SafeTensorError::InvalidOffset(name) => {
            let expected = "bytes that follow those of the tensor before it";
            Wrong::new(format!("tensor {name}"), expected, "a gap or an overlap")
        }
        SafeTensorError::TensorInvalidInfo => {
            header("a tensor with another number of bytes than its shape and number format need".into())
        }
        SafeTensorError::MetadataIncompleteBuffer => {
            let behind = bytes.len().saturating_sub(LENGTH_BYTES + text.len());
            Wrong::new("content", EXPECTED, format!("{behind} bytes of tensors, and not as many as the header says"))
        }
        SafeTensorError::ValidationOverflow => header("a tensor with a shape that is too large".into()),
        other => header(other.to_string()),
    }
}

/// The first entry of a header that is not what it should be.
fn bad_entry(text: &[u8]) -> Wrong {
    #[derive(serde::Deserialize)]
    #[allow(dead_code)]
    struct Entry {
        dtype: safetensors::Dtype,
        shape: Vec<usize>,
        data_offsets: (usize, usize),
    }
    let Ok(entries) = json::object(text) else {
        return Wrong::new("header", EXPECTED, "a header that is no JSON object");
    };
    for (name, value) in entries {
        if name == "__metadata__" {
            let texts = value.as_object().map(|texts| texts.iter().find(|(_, value)| !value.is_string()));
            let (field, got) = match texts {
                Some(None) => continue,
                _ if value.is_null() => continue,
                Some(Some((field, value))) => (format!("{name}.{field}"), json::describe(value)),
                None => (name, json::describe(&value)),
            };
            return Wrong::new(format!("header: {field}"), "text", got);
        }
        if let Err(wrong) = json::from_value::<Entry>(value) {
            return Wrong { field: format!("tensor {name}: {}", wrong.field), ..wrong };
        }
    }
    Wrong::new("header", EXPECTED, "entries that are no tensors")
}
