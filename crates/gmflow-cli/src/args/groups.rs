//! Arguments that several commands share.

use super::values::{Choice, count, one_of, range};
use clap::Args;
use gmflow::checkpoint::Precision;
use gmflow::kernel::PrecisionChoice;
use gmflow_eval::ModelOptions;
use gmflow_eval::arrays::Layout;
use std::path::PathBuf;

/// The help of arguments that name a checkpoint.
pub const CHECKPOINT: &str = "A run folder (its latest checkpoint is used), a model folder, a published checkpoint, or owner/name of one \
on the Hugging Face hub";

/// Where to compute.
#[derive(Args, Debug)]
pub struct DeviceArgs {
    /// Where to compute: cpu, or in a build for GPUs cuda, vulkan, wgpu, with an index as in cuda:1, or gpu
    #[arg(id = "device", long = "device", value_name = "DEVICE", default_value = "cpu")]
    pub name: String,
}

/// What happens to files that are there already.
#[derive(Args, Debug)]
pub struct OverwriteArgs {
    /// Overwrite existing files
    #[arg(long)]
    pub force: bool,
}

/// How the outcome of a command is printed.
#[derive(Args, Debug)]
pub struct OutcomeArgs {
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// How tables are printed.
#[derive(Args, Debug)]
pub struct TableArgs {
    /// Print the tables in Markdown
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
    /// Print what was measured as JSON instead of the tables
    #[arg(long)]
    pub json: bool,
}

/// Where a data set is that a configuration gives by its name.
#[derive(Args, Debug, Default, Clone)]
pub struct DataArgs {
    /// The folder of the files of a data set that the configuration gives by its name (IDX or Parquet), or the folder above it
    /// [default: below GMFLOW_DATA, or else what gmflow data get has downloaded]
    #[arg(id = "data_dir", long = "data", visible_alias = "data-dir", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Which features images are compared by.
#[derive(Args, Debug, Clone)]
pub struct FeatureArgs {
    /// Features: inception (the published weights, downloaded once), inception=FILE, inception-pytorch-fid[=FILE] (that
    /// program's resizing), classifier=FILE (from gmflow features train), pixels; or precomputed, for arrays of vectors
    #[arg(long, value_name = "F", default_value = "inception")]
    pub features: String,
    #[command(flatten)]
    pub download: DownloadArgs,
}

/// Whether anything may be downloaded.
#[derive(Args, Debug, Clone, Copy, Default)]
pub struct DownloadArgs {
    /// Do not download anything
    #[arg(long)]
    pub offline: bool,
}

/// What the numbers of array files are.
#[derive(Args, Debug, Clone, Copy, Default)]
pub struct ArrayArgs {
    /// The values of black and white in array files of images, such as -1,1 or 0,1 or 0,255 [default: 0,255 for uint8;
    /// -1,1 for floating-point numbers, which are refused if some lie outside or none is negative; -1,1 for files of
    /// gmflow sample]
    #[arg(long, value_name = "LOW,HIGH", value_parser = range, allow_hyphen_values = true)]
    pub range: Option<[f64; 2]>,
    /// The order of the axes in array files of images [default: the axis of size 1 or 3, or the one that fits the reference]
    #[arg(long, value_parser = one_of(LAYOUTS))]
    pub layout: Option<Layout>,
}

const LAYOUTS: &[Choice<Layout>] = &[("nchw", Layout::Nchw, "[n, c, h, w]"), ("nhwc", Layout::Nhwc, "[n, h, w, c]")];

/// The real data that samples are compared with.
#[derive(Args, Debug)]
pub struct ReferenceArgs {
    #[command(flatten)]
    pub named: DataArgs,
    #[command(flatten)]
    pub features: FeatureArgs,
    #[command(flatten)]
    pub arrays: ArrayArgs,
    /// Height and width to resize the real images of a folder to [default: as they are; all must have one size]
    #[arg(long, value_name = "PIXELS", value_parser = count)]
    pub size: Option<usize>,
    /// Use only this many real images, the first ones
    #[arg(long, value_name = "N", value_parser = count)]
    pub limit: Option<usize>,
}

/// Which of a checkpoint's versions and weights to read, and how.
#[derive(Args, Debug, Default)]
pub struct PublishedArgs {
    /// The branch, tag or commit of a repository on the hub [default: main]
    #[arg(long, value_name = "R")]
    pub revision: Option<String>,
    /// Read these weights of a published checkpoint, such as bf16
    #[arg(long, value_name = "V")]
    pub variant: Option<String>,
    /// Read weights even if they differ from the checksums in model.json (damaged, or changed on purpose)
    #[arg(long)]
    pub no_verify: bool,
}

/// Which of a model's weights are sampled from, and in which arithmetic.
#[derive(Args, Debug)]
pub struct ModelArgs {
    /// The moving average of the weights to use; `none` for the weights themselves [default: the first average by name,
    /// where there is one]
    #[arg(long, value_name = "NAME")]
    pub ema: Option<String>,
    #[command(flatten)]
    pub published: PublishedArgs,
    /// The autoencoder that decodes a model of latents [default: the one that came with the model, or that its data was
    /// encoded with]
    #[arg(long, value_name = "DIR")]
    pub vae: Option<PathBuf>,
    /// Number format in which the network's large layers multiply. A format that the processor or the network does not
    /// support becomes f32. Files of samples and figures record it [default: f32 in eval, so that figures of different
    /// machines compare; auto in other commands]
    #[arg(long, value_name = "PRECISION", value_parser = one_of(MATMUL_PRECISIONS))]
    pub precision: Option<PrecisionChoice>,
}

impl ModelArgs {
    /// The arithmetic of samples that are drawn for themselves.
    pub fn precision(&self) -> PrecisionChoice {
        self.precision.unwrap_or(PrecisionChoice::Auto)
    }

    /// The same for the library, in `precision` unless another was asked for.
    pub fn options(&self, precision: PrecisionChoice) -> ModelOptions {
        ModelOptions {
            ema: self.ema.clone(),
            precision: self.precision.unwrap_or(precision),
            variant: self.published.variant.clone(),
            vae: self.vae.clone(),
            unverified: self.published.no_verify,
        }
    }
}

const MATMUL_PRECISIONS: &[Choice<PrecisionChoice>] = &[
    ("auto", PrecisionChoice::Auto, "the faster of f32 and bf16 on this processor; U-Nets in f32"),
    ("f32", PrecisionChoice::F32, "32-bit floating point"),
    (
        "bf16",
        PrecisionChoice::Bf16,
        "bf16 with sums in f32: in less memory, and faster on most processors with AVX512-BF16",
    ),
    (
        "int8",
        PrecisionChoice::Int8,
        "8-bit integers with a scale for every 128: faster still and smaller where the processor has AVX512-VNNI",
    ),
];

/// How weights are written.
#[derive(Args, Debug)]
pub struct PrecisionArgs {
    /// How numbers are stored
    #[arg(long, value_name = "P", default_value = "f32", value_parser = one_of(PRECISIONS))]
    pub precision: Precision,
}

const PRECISIONS: &[Choice<Precision>] = &[
    ("f32", Precision::F32, "32 bits"),
    ("bf16", Precision::Bf16, "16 bits with the range of f32"),
    ("f16", Precision::F16, "16 bits, IEEE half precision"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_have_the_names_that_files_give_them() {
        assert!(MATMUL_PRECISIONS.iter().all(|(name, value, _)| json!(value) == *name));
        assert!(PRECISIONS.iter().all(|(name, value, _)| json!(value) == *name));
        assert!(LAYOUTS.iter().all(|(name, value, _)| json!(value) == *name));
    }
}
