//! Where a sample of a shard is.

use serde::{Deserialize, Serialize};

/// Where one sample of a shard is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sample {
    /// The name of its members, without the endings.
    pub key: String,
    /// The ending of the image.
    pub ending: String,
    /// The first byte of the image in the shard.
    pub offset: u64,
    /// The image's size.
    pub bytes: u64,
    /// The label as it is written; none in a set without labels, or of a sample that lacks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}
