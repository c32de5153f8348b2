//! What networks take in memory.

use super::Need;
use crate::network::{
    AutoencoderConfig, GmDitConfig, Initializer, Mlp2dConfig, NetworkConfig, SpectrumMlpConfig, TorchNames,
    UnetConfig, parameter_shapes,
};
use crate::{Result, kernel};
use burn::tensor::Device;
use serde_json::Value;

/// What a gradient and the optimiser keep beside every weight: the gradient and two moments.
const BESIDE_A_WEIGHT: u128 = 3;
/// Of these, the moments.
const MOMENTS: u128 = 2;
/// Tensors of the size of a mixture that exist at once while a loss or a solver works on it.
const MIXTURES: u128 = 4;

/// Numbers for one sample that exist at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activations {
    /// In a prediction.
    pub prediction: u128,
    /// In training, which keeps what the way back needs.
    pub training: u128,
}

impl Activations {
    /// Those of a network for samples of shape `[c h w]`; `recomputed` where the way back computes them again.
    pub fn of(network: &NetworkConfig, shape: [usize; 3], recomputed: bool) -> Self {
        match network {
            NetworkConfig::Mlp2d(config) => of_mlp(config),
            NetworkConfig::GmDit(config) => of_gmdit(config, shape, recomputed),
            NetworkConfig::Unet(config) => of_unet(config, shape, recomputed),
        }
    }
}

/// The parameters of a network. None of them is made for it.
///
/// # Errors
/// A field out of range.
pub fn parameters(config: &NetworkConfig) -> Result<u128> {
    let device = Device::flex();
    config.validate()?;
    Ok(sum(&config.build(Initializer::blank(&device))?))
}

/// [`parameters`] of a spectrum network.
///
/// # Errors
/// A field out of range.
pub fn parameters_of_spectrum(config: &SpectrumMlpConfig) -> Result<u128> {
    Ok(sum(&config.build(Initializer::blank(&Device::flex()))?))
}

/// [`parameters`] of an autoencoder.
///
/// # Errors
/// A field out of range.
pub fn parameters_of_autoencoder(config: &AutoencoderConfig) -> Result<u128> {
    Ok(sum(&config.build(Initializer::blank(&Device::flex()))?))
}

/// What is trained, and how: all that [`check_training`] goes by.
#[derive(Clone, Copy, Debug)]
pub struct Training<'a> {
    /// The network.
    pub network: &'a NetworkConfig,
    /// `[c h w]` of a sample.
    pub shape: [usize; 3],
    /// Samples of a step.
    pub batch: usize,
    /// Samples of a pass: the whole batch where it is not given.
    pub micro_batch: Option<usize>,
    /// Batches that are prepared ahead.
    pub queue: usize,
    /// Averages of the weights.
    pub averages: usize,
    /// Whether all weights are trained, and not some of them only.
    pub all_trained: bool,
    /// Whether the way back computes activations again.
    pub recomputed: bool,
    /// Processes on this machine that need as much, this one included.
    pub processes: usize,
    /// Processes that each hold a part of the moments and averages; 1 where every process holds all of them.
    pub state_shares: usize,
    /// The network that distillation asks beside the one in training.
    pub teacher: Option<Teacher<'a>>,
    /// Where the networks are.
    pub device: &'a Device,
}

/// A frozen network that is asked for velocities in training.
#[derive(Clone, Copy, Debug)]
pub struct Teacher<'a> {
    /// The network.
    pub network: &'a NetworkConfig,
    /// Bytes of a weight: 4 in f32, 2 in bf16.
    pub weight_bytes: usize,
    /// Whether each sample is asked about with its class and without.
    pub is_guided: bool,
}

/// Checks that the weights of a network in training fit in memory, with so many averages, and with their gradients and the optimiser's
/// moments where all of them are trained. On a GPU they are elsewhere.
///
/// # Errors
/// [`crate::Error::Memory`] naming the field of the network that is too large; a field out of range.
pub fn check_weights(
    network: &NetworkConfig,
    (averages, all_trained): (usize, bool),
    device: &Device,
) -> Result<Need> {
    let parameters = parameters(network)?;
    if !kernel::on_cpu(device) {
        return Ok(Need::new());
    }
    let beside = if all_trained { BESIDE_A_WEIGHT } else { 0 };
    let copies = 1 + beside + averages as u128;
    let weights = format!("{parameters} parameters with gradient, moments and averages");
    let need = Need::new().floats(&weights, &[parameters, copies]);
    let (field, value) = largest_field(network);
    need.check(&format!("network.{field}"), value, &format!("lower network.{field} or another size of the network"))?;
    Ok(need)
}

/// Checks that training fits in memory: first the weights ([`check_weights`]), then with them the batches and the activations.
///
/// # Errors
/// [`crate::Error::Memory`] naming the field of the network or the batch size; a field out of range.
pub fn check_training(training: &Training) -> Result<()> {
    let Training { network, shape, batch, micro_batch, queue, averages, all_trained, recomputed, device, .. } =
        *training;
    let need = if training.state_shares > 1 && kernel::on_cpu(device) {
        let numbers = numbers_in_training(parameters(network)?, averages, training.state_shares);
        Need::new().floats("weights, gradients and a part of moments and averages", &[numbers])
    } else {
        check_weights(network, (averages, all_trained), device)?
    };
    let sample = shape.iter().fold(1, |n: u128, size| n.saturating_mul(*size as u128));
    // Samples, noise and the transition's noise; a batch in work at either end of the queue.
    let need = need.floats("batches that are prepared ahead", &[3, batch as u128, sample, queue as u128 + 2]);
    let pass = match (micro_batch, network) {
        (Some(micro), _) => micro,
        (None, NetworkConfig::Mlp2d(config)) => batch.min(fastest_pass_of_points(config)),
        (None, _) => batch,
    };
    let each = Activations::of(network, shape, recomputed).training;
    let need = if kernel::on_cpu(device) { need.floats("activations", &[pass as u128, each]) } else { need };
    let need = match training.teacher.filter(|_| kernel::on_cpu(device)) {
        None => need,
        Some(teacher) => {
            let weights = parameters(teacher.network)?;
            let each = Activations::of(teacher.network, shape, false).prediction;
            let asked = pass as u128 * if teacher.is_guided { 2 } else { 1 };
            let bytes = weights.saturating_mul(teacher.weight_bytes as u128);
            let need = need.bytes(&format!("{weights} weights of the teacher"), bytes);
            need.check("distill.teacher", weights, "take a smaller teacher")?;
            need.floats("activations of the teacher", &[asked, each])
        }
    };
    let advice = if pass == batch && batch > 1 {
        "lower train.batch_size, or set train.micro_batch to compute it in parts"
    } else {
        "lower train.batch_size, train.micro_batch or data.queue"
    };
    need.times(training.processes).check("train.batch_size", batch, advice)
}

/// The numbers that a process in training holds of a network on the CPU, beside activations and batches: weights and their gradients, and of
/// the two moments and the averages the part of one of `shares` processes.
pub fn numbers_in_training(parameters: u128, averages: usize, shares: usize) -> u128 {
    let state = parameters.saturating_mul(MOMENTS + averages as u128);
    parameters.saturating_mul(BESIDE_A_WEIGHT - MOMENTS + 1).saturating_add(state.div_ceil(shares.max(1) as u128))
}

/// Points of a forward and backward pass beyond which training gets slower: so many that what a perceptron's layers hold for the way back
/// stays in the last-level cache.
pub fn fastest_pass_of_points(config: &Mlp2dConfig) -> usize {
    /// Values of one layer.
    const VALUES: usize = 512 * 1024;
    (VALUES / config.hidden_dim.max(1)).max(1)
}

/// What an autoencoder needs for images `[c h w]`, of which it works on so many at once, in tiles of at most `tile` latents to a side.
///
/// # Errors
/// A field out of range.
pub fn decoding(
    config: &AutoencoderConfig,
    [_, h, w]: [usize; 3],
    (batch, tile): (usize, usize),
    device: &Device,
) -> Result<Need> {
    /// Tensors of the size of the widest layer that exist at once.
    const AT_ONCE: u128 = 3;
    let side = tile.saturating_mul(config.downsampling());
    let widest = config.block_out_channels.iter().enumerate().map(|(level, channels)| {
        let shrink = |size: usize| size.min(side).checked_shr(level as u32).unwrap_or(0);
        product(&[*channels, shrink(h), shrink(w)])
    });
    let widest = widest.max().unwrap_or(0);
    let parameters = parameters_of_autoencoder(config)?;
    if !kernel::on_cpu(device) {
        return Ok(Need::new());
    }
    let weights = Need::new().floats(&format!("{parameters} parameters"), &[parameters]);
    Ok(weights.floats("activations", &[batch as u128, widest, AT_ONCE]))
}

/// What a pass of `batch` samples `[c h w]` through a network needs, with its weights; nothing where they are on a GPU.
///
/// # Errors
/// A field of the network out of range.
pub fn prediction(network: &NetworkConfig, shape: [usize; 3], batch: usize, device: &Device) -> Result<Need> {
    if !kernel::on_cpu(device) {
        return Ok(Need::new());
    }
    let each = Activations::of(network, shape, false).prediction;
    let parameters = parameters(network)?;
    // Panels in 8 bits are the least that weights are packed into.
    let weights = Need::new().bytes(&format!("{parameters} parameters"), parameters);
    Ok(weights.floats("activations", &[batch as u128, each]))
}

fn sum<M: TorchNames>(network: &M) -> u128 {
    let size = |shape: &[usize]| shape.iter().fold(1, |n: u128, size| n.saturating_mul(*size as u128));
    parameter_shapes(network).iter().fold(0, |total: u128, (_, shape)| total.saturating_add(size(shape)))
}

/// The field of a network that its number of parameters owes most to, and its value: the one that saves most at its default.
fn largest_field(network: &NetworkConfig) -> (String, u64) {
    let Ok(Value::Object(fields)) = serde_json::to_value(network) else { return ("type".into(), 0) };
    let default = match network {
        NetworkConfig::Mlp2d(_) => serde_json::to_value(Mlp2dConfig::default()),
        NetworkConfig::GmDit(_) => serde_json::to_value(GmDitConfig::default()),
        NetworkConfig::Unet(_) => serde_json::to_value(UnetConfig::default()),
    };
    let default = default.unwrap_or_default();
    let smaller = |name: &str, value: &Value| {
        let mut fields = fields.clone();
        fields.insert(name.to_owned(), value.clone());
        let network: NetworkConfig = serde_json::from_value(Value::Object(fields)).ok()?;
        parameters(&network).ok()
    };
    let saving = fields.iter().filter_map(|(name, value)| {
        let own = value.as_u64().or_else(|| value.as_array()?.iter().filter_map(Value::as_u64).max())?;
        Some((smaller(name, default.get(name)?)?, (name.clone(), own)))
    });
    saving.min_by_key(|(left, _)| *left).map_or_else(|| ("type".into(), 0), |(_, field)| field)
}

fn product(counts: &[usize]) -> u128 {
    counts.iter().fold(1, |n: u128, count| n.saturating_mul(*count as u128))
}

fn of_mlp(config: &Mlp2dConfig) -> Activations {
    let Mlp2dConfig { embed_dim, hidden_dim, num_layers, num_gaussians, .. } = config;
    let features = product(&[2, *embed_dim]);
    let mixture = product(&[3, *num_gaussians]).saturating_mul(MIXTURES);
    let layer = product(&[2, *hidden_dim]);
    Activations {
        prediction: features + layer + mixture,
        training: features.saturating_add(layer.saturating_mul(*num_layers as u128)).saturating_add(mixture),
    }
}

fn of_gmdit(config: &GmDitConfig, [_, h, w]: [usize; 3], recomputed: bool) -> Activations {
    /// Tensors of the size of the tokens that one block has at once, in a prediction.
    const AT_ONCE: u128 = 6;
    /// Those that a block keeps for the way back, and where they are computed again.
    const KEPT: [u128; 2] = [16, 4];
    let p = config.patch_size.max(1);
    let tokens = product(&[h / p, w / p, config.hidden()]);
    let mixture = product(&[config.head_channels(), h, w]).saturating_mul(MIXTURES);
    let kept = tokens.saturating_mul(KEPT[usize::from(recomputed)]).saturating_mul(config.num_layers as u128);
    Activations {
        prediction: tokens.saturating_mul(AT_ONCE).saturating_add(mixture),
        training: kept.saturating_add(mixture),
    }
}

fn of_unet(config: &UnetConfig, [_, h, w]: [usize; 3], recomputed: bool) -> Activations {
    /// Tensors that a residual block keeps for the way back, and where they are computed again.
    const KEPT: [u128; 2] = [6, 2];
    let areas = config.block_out_channels.iter().enumerate().map(|(level, channels)| {
        let shrink = |size: usize| size.checked_shr(level as u32).unwrap_or(0);
        product(&[*channels, shrink(h), shrink(w)])
    });
    let areas: Vec<u128> = areas.collect();
    let largest = areas.iter().copied().max().unwrap_or(0);
    // Blocks on the way down, and one more on the way up.
    let blocks = product(&[2, config.layers_per_block]) + 1;
    let all = areas.iter().fold(0, |sum: u128, area| sum.saturating_add(area.saturating_mul(blocks)));
    let mixture = product(&[config.head_channels(), h, w]).saturating_mul(MIXTURES);
    Activations {
        // What the way up takes from the way down, and a block at work.
        prediction: (all / 2).saturating_add(largest.saturating_mul(2)).saturating_add(mixture),
        training: all.saturating_mul(KEPT[usize::from(recomputed)]).saturating_add(mixture),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::named_tensors;
    use crate::{Error, FilesError};

    fn small() -> [NetworkConfig; 3] {
        [
            NetworkConfig::Mlp2d(Mlp2dConfig {
                hidden_dim: 16,
                num_layers: 3,
                embed_dim: 8,
                ..Mlp2dConfig::default()
            }),
            NetworkConfig::GmDit(GmDitConfig {
                num_layers: 2,
                attention_head_dim: 4,
                sample_size: 8,
                ..GmDitConfig::default()
            }),
            NetworkConfig::Unet(UnetConfig { block_out_channels: vec![32, 32], ..UnetConfig::default() }),
        ]
    }

    #[test]
    fn parameters_are_counted_without_making_them() {
        for config in small() {
            let network = config.init(1, &Device::flex()).expect("valid");
            let made: usize = named_tensors(&network).iter().map(|(_, tensor)| tensor.values.len()).sum();
            assert_eq!(parameters(&config).expect("valid"), made as u128, "{config:?}");
        }
    }

    #[test]
    fn the_field_that_is_too_large_is_named() {
        let field = |config: Mlp2dConfig| largest_field(&NetworkConfig::Mlp2d(config));
        assert_eq!(
            field(Mlp2dConfig { hidden_dim: 60_000, ..Mlp2dConfig::default() }),
            ("hidden_dim".into(), 60_000)
        );
        assert_eq!(field(Mlp2dConfig { num_layers: 1000, ..Mlp2dConfig::default() }), ("num_layers".into(), 1000));
        assert_eq!(
            field(Mlp2dConfig { num_gaussians: 65_000, ..Mlp2dConfig::default() }),
            ("num_gaussians".into(), 65_000)
        );
        let unet = UnetConfig { block_out_channels: vec![128, 16_384], ..UnetConfig::default() };
        assert_eq!(largest_field(&NetworkConfig::Unet(unet)), ("block_out_channels".into(), 16_384));
    }

    fn training<'a>(network: &'a NetworkConfig, device: &'a Device) -> Training<'a> {
        Training {
            network,
            shape: if matches!(network, NetworkConfig::Mlp2d(_)) { [2, 1, 1] } else { [3, 16, 16] },
            batch: 4,
            micro_batch: None,
            queue: 2,
            averages: 1,
            all_trained: true,
            recomputed: false,
            processes: 1,
            state_shares: 1,
            teacher: None,
            device,
        }
    }

    #[test]
    fn a_teacher_counts() {
        let device = Device::flex();
        let [network, ..] = small();
        let wide =
            NetworkConfig::Mlp2d(Mlp2dConfig { hidden_dim: 1 << 16, num_layers: 1 << 10, ..Mlp2dConfig::default() });
        let with = |teacher| Training {
            teacher: Some(Teacher { network: teacher, weight_bytes: 2, is_guided: true }),
            ..training(&network, &device)
        };
        assert!(check_training(&with(&network)).is_ok());
        let error = check_training(&with(&wide)).unwrap_err().to_string();
        assert!(error.starts_with("distill.teacher: expected a value that fits in memory"), "{error}");
    }

    #[test]
    fn what_cannot_fit_is_refused_before_it_is_taken() {
        let device = Device::flex();
        for network in small() {
            let training = training(&network, &device);
            assert!(check_training(&training).is_ok());
            let error = check_training(&Training { batch: 1 << 50, ..training }).unwrap_err().to_string();
            let begin = "train.batch_size: expected a value that fits in memory, got 1125899906842624";
            assert!(error.starts_with(begin), "{error}");
            assert!(error.contains("B for ") && error.contains("lower train.batch_size"), "{error}");
        }
        let wide = Mlp2dConfig { hidden_dim: 1 << 16, num_layers: 1 << 10, ..Mlp2dConfig::default() };
        let network = NetworkConfig::Mlp2d(wide);
        let error = check_training(&training(&network, &device)).unwrap_err().to_string();
        assert!(error.starts_with("network.hidden_dim: expected a value that fits in memory, got 65536"), "{error}");
        let none = NetworkConfig::Mlp2d(Mlp2dConfig { hidden_dim: 0, ..Mlp2dConfig::default() });
        assert!(matches!(parameters(&none), Err(Error::Files(FilesError::Config { .. }))));
    }
}
