//! The network that a distillation starts from.

use crate::network::{GmDitConfig, GmDitHead, HostTensor, Network, NetworkConfig, load_named, named_tensors};
use crate::rng::{Purpose, normals};
use crate::{Error, Result};
use burn::tensor::Device;
use std::collections::BTreeMap;

/// The standard deviation of what is added to the biases of copied means, so that components are not equal.
const NOISE: f32 = 0.05;

/// The standard deviation of the components that a student of a plain teacher begins with.
const FIRST_STD: f32 = 0.05;

/// What becomes of the head where the teacher has one component and the student several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StudentHead {
    /// Components around the teacher's velocity, a little apart, of equal weights.
    Mixture,
    /// Equal points of a grid.
    Grid,
}

/// A network of the architecture `config` that begins as `teacher`, of which it differs in its head alone.
///
/// From a teacher with one component, every component is a copy of it, with one standard normal of `seed` for each component and channel
/// times 0.05 added to the biases; all weights are equal, and the standard deviation is 0.05. From one with as many components as the
/// student its head is copied.
///
/// # Errors
/// [`crate::FilesError::Config`] where the architectures differ in more, or the teacher has another number of components that is not 1.
pub fn student(
    teacher: &Network,
    config: &NetworkConfig,
    head: StudentHead,
    seed: u64,
    device: &Device,
) -> Result<Network> {
    let fresh = config.init(seed, device)?;
    let from = teacher.config();
    let (old, new) = (Layout::of(&from), Layout::of(config));
    let mut theirs: BTreeMap<String, HostTensor> = named_tensors(teacher).into_iter().collect();
    let rows = old.read(&mut theirs)?;
    let rows = if old.components == new.components {
        Rows { weights: rows.weights.or_else(|| new.equal_weights(&rows.means)), means: rows.means }
    } else if old.components == 1 {
        let noise = match head {
            StudentHead::Mixture => normals(seed, Purpose::StudentStart, 0, new.components * new.channels),
            StudentHead::Grid => vec![0.0; new.components * new.channels],
        };
        let means = spread(&rows.means, [new.places, new.components, new.channels], &noise);
        Rows { weights: new.equal_weights(&means), means }
    } else {
        let expected = format!("{}, as many as the teacher has, or a teacher with one", old.components);
        return Err(Error::config("network.num_gaussians", expected, new.components));
    };
    let written = new.write(rows);
    let copies_std = old.components == new.components;
    let tensors = named_tensors(&fresh).into_iter().map(|(name, drawn)| {
        if let Some(tensor) = written.get(&name) {
            return Ok((name, HostTensor { shape: drawn.shape, values: tensor.clone() }));
        }
        if let Some((layer, leaf)) = new.log_std_layer(&name) {
            let copied = theirs.remove(&old.log_std_name(layer, leaf)).filter(|old| old.shape == drawn.shape);
            let tensor = if copies_std { copied.unwrap_or(drawn) } else { new.first_std(layer, leaf, drawn) };
            return Ok((name.clone(), tensor));
        }
        match theirs.remove(&name) {
            Some(tensor) if tensor.shape == drawn.shape => Ok((name, tensor)),
            other => {
                let got = other.map_or_else(|| "nothing".to_owned(), |tensor| format!("shape {:?}", tensor.shape));
                let expected = format!("the teacher's, shape {:?}", drawn.shape);
                Err(Error::config(format!("tensor {name}"), expected, got))
            }
        }
    });
    load_named(fresh, tensors.collect::<Result<BTreeMap<_, _>>>()?)
}

/// One row of a layer's weight, and its bias.
#[derive(Clone)]
struct Row {
    weight: Vec<f32>,
    bias: f32,
}

/// The rows of a head: of the means by place in the patch, component and channel, of the log weights by place and component.
struct Rows {
    means: Vec<Row>,
    weights: Option<Vec<Row>>,
}

/// Where the parts of a head stand.
struct Layout {
    /// Places of a patch.
    places: usize,
    components: usize,
    channels: usize,
    form: Form,
    /// The parameters of the log-std head: what stands before and behind the number of a layer, and the last number.
    log_std: &'static str,
    last_log_std: Option<usize>,
}

/// Which layers they are.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// One layer, means before weights at every place.
    Joint(&'static str),
    /// Two layers.
    Apart(&'static str, &'static str),
    /// Means alone.
    Means(&'static str),
}

impl Layout {
    fn of(config: &NetworkConfig) -> Self {
        let last = |constant: Option<f64>, layers: usize| constant.is_none().then(|| layers.saturating_sub(1));
        match config {
            NetworkConfig::Mlp2d(net) => Self {
                places: 1,
                components: net.num_gaussians,
                channels: 2,
                form: Form::Apart("out_means", "out_logweights"),
                log_std: "out_logstds",
                last_log_std: last(net.constant_logstd, 1),
            },
            NetworkConfig::Unet(net) => Self {
                places: 1,
                components: net.num_gaussians,
                channels: net.out_channels(),
                form: Form::Joint("conv_out"),
                log_std: "gm_out.logstd_layers",
                last_log_std: last(net.constant_logstd, net.gm_num_logstd_layers),
            },
            NetworkConfig::GmDit(net) => Self::of_transformer(net),
        }
    }

    fn of_transformer(net: &GmDitConfig) -> Self {
        let (form, log_std) = match net.head {
            GmDitHead::OnePart => (Form::Joint("proj_out_2"), "gm_out.logstd_layers"),
            GmDitHead::TwoParts => (Form::Apart("proj_out_means", "proj_out_logweights"), "proj_out_logstds"),
            GmDitHead::Means => (Form::Means("proj_out_2"), ""),
        };
        let has_std = net.constant_logstd.is_none() && net.head != GmDitHead::Means;
        Self {
            places: net.patch_size * net.patch_size,
            components: net.num_gaussians,
            channels: net.out_channels(),
            form,
            log_std,
            last_log_std: has_std.then(|| net.gm_num_logstd_layers.saturating_sub(1)),
        }
    }

    /// Takes the head's rows out of a network's tensors.
    fn read(&self, tensors: &mut BTreeMap<String, HostTensor>) -> Result<Rows> {
        let mut layer = |name: &str| -> Result<Vec<Row>> {
            let mut take = |leaf: &str| {
                let name = format!("{name}.{leaf}");
                tensors.remove(&name).ok_or_else(|| Error::config(format!("tensor {name}"), "a tensor", "none"))
            };
            let (weight, bias) = (take("weight")?, take("bias")?);
            let width = weight.values.len() / bias.values.len().max(1);
            let rows = weight.values.chunks(width.max(1)).zip(bias.values);
            Ok(rows.map(|(weight, bias)| Row { weight: weight.to_vec(), bias }).collect())
        };
        match self.form {
            Form::Means(name) => Ok(Rows { means: layer(name)?, weights: None }),
            Form::Apart(means, weights) => Ok(Rows { means: layer(means)?, weights: Some(layer(weights)?) }),
            Form::Joint(name) => {
                let (mut means, mut weights) = (Vec::new(), Vec::new());
                for place in layer(name)?.chunks(self.components * (self.channels + 1)) {
                    let (of_means, of_weights) = place.split_at((self.components * self.channels).min(place.len()));
                    means.extend_from_slice(of_means);
                    weights.extend_from_slice(of_weights);
                }
                Ok(Rows { means, weights: Some(weights) })
            }
        }
    }

    /// The values of the head's tensors, by name.
    fn write(&self, rows: Rows) -> BTreeMap<String, Vec<f32>> {
        let mut tensors = BTreeMap::new();
        let mut layer = |name: &str, rows: &[Row]| {
            let weight = rows.iter().flat_map(|row| row.weight.iter().copied()).collect();
            tensors.insert(format!("{name}.weight"), weight);
            tensors.insert(format!("{name}.bias"), rows.iter().map(|row| row.bias).collect());
        };
        let weights = rows.weights.unwrap_or_default();
        match self.form {
            Form::Means(name) => layer(name, &rows.means),
            Form::Apart(of_means, of_weights) => {
                layer(of_means, &rows.means);
                layer(of_weights, &weights);
            }
            Form::Joint(name) => {
                let places = rows.means.chunks((self.components * self.channels).max(1));
                let places = places.zip(weights.chunks(self.components.max(1)));
                let joint: Vec<Row> = places.flat_map(|(means, weights)| [means, weights].concat()).collect();
                layer(name, &joint);
            }
        }
        tensors
    }

    /// Log weights that are 0 whatever comes in, where there are any.
    fn equal_weights(&self, means: &[Row]) -> Option<Vec<Row>> {
        let width = means.first().map_or(0, |row| row.weight.len());
        let none = Row { weight: vec![0.0; width], bias: 0.0 };
        (!matches!(self.form, Form::Means(_))).then(|| vec![none; self.places * self.components])
    }

    /// The number of a layer of the log-std head and the leaf, if `name` is of one.
    fn log_std_layer<'a>(&self, name: &'a str) -> Option<(usize, &'a str)> {
        self.last_log_std?;
        let rest = name.strip_prefix(self.log_std)?.strip_prefix('.')?;
        match rest.split_once('.') {
            None => Some((0, rest)),
            Some((number, leaf)) => Some((number.parse::<usize>().ok()? / 2, leaf)),
        }
    }

    fn log_std_name(&self, layer: usize, leaf: &str) -> String {
        match self.log_std {
            "out_logstds" => format!("out_logstds.{leaf}"),
            name => format!("{name}.{}.{leaf}", 2 * layer + 1),
        }
    }

    /// Hidden layers as they are drawn; the last gives one standard deviation whatever comes in.
    fn first_std(&self, layer: usize, leaf: &str, drawn: HostTensor) -> HostTensor {
        if Some(layer) != self.last_log_std {
            return drawn;
        }
        let value = if leaf == "bias" { FIRST_STD.ln() } else { 0.0 };
        HostTensor { values: vec![value; drawn.values.len()], shape: drawn.shape }
    }
}

/// Every component as a copy of the only one, its biases moved by the noise `[components channels]`, the same at every place.
fn spread(means: &[Row], [places, components, channels]: [usize; 3], noise: &[f32]) -> Vec<Row> {
    let mut rows = Vec::with_capacity(places * components * channels);
    for place in means.chunks(channels.max(1)) {
        for noise in noise.chunks(channels.max(1)) {
            let moved =
                |(row, noise): (&Row, &f32)| Row { weight: row.weight.clone(), bias: row.bias + NOISE * noise };
            rows.extend(place.iter().zip(noise).map(moved));
        }
    }
    rows
}
