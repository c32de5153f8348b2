//! The layers of a classifier, as a function of flat parameters.

use crate::{Error, Result};
use burn::tensor::Tensor;
use gmflow::kernel;
use gmflow::network::HostTensor;
use serde::{Deserialize, Serialize};

/// The parameters in the order of [`Layers::shapes`].
pub type Parameters = Vec<HostTensor>;

/// Neighbouring channels that are normalised together.
const GROUPS: usize = 8;
const EPS: f64 = 1e-5;
/// Channels after the first and the second pair of convolutions of the small network, and numbers in its feature vector.
const SMALL: [usize; 3] = [32, 64, 128];
/// Levels of the residual network.
const LEVELS: usize = 3;
/// The most channels and blocks that are taken for sense.
const LARGEST: usize = 1024;

/// The layers of a classifier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Architecture {
    /// Four 3 x 3 convolutions, of which the second and the fourth halve the image, the average over pixels, and two linear layers.
    /// The features are the 128 numbers of the first of them. Enough for digits.
    #[default]
    Small,
    /// A convolution with `width`/2 channels, then three levels of `width`, 2 `width` and 4 `width` channels. Each halves the image
    /// and has `depth` residual blocks of two convolutions. The features are the averages over pixels, 4 `width` numbers.
    Residual {
        /// Channels of the first level.
        width: usize,
        /// Residual blocks of each level.
        depth: usize,
    },
}

impl Architecture {
    /// Checks every field, naming the first that is out of range.
    ///
    /// # Errors
    /// A width that is no multiple of 16, or a width or depth that is too large.
    pub fn validate(self) -> Result<()> {
        let Self::Residual { width, depth } = self else { return Ok(()) };
        if width == 0 || !width.is_multiple_of(2 * GROUPS) || width > LARGEST {
            return Err(Error::config("width", format!("a multiple of {} up to {LARGEST}", 2 * GROUPS), width));
        }
        if depth > LARGEST {
            return Err(Error::config("depth", format!("at most {LARGEST}"), depth));
        }
        Ok(())
    }

    /// Numbers in a feature vector.
    pub fn features(self) -> usize {
        match self {
            Self::Small => SMALL[2],
            Self::Residual { width, .. } => 4 * width,
        }
    }

    /// The layers for images of `channels` channels and `classes` classes.
    pub(super) fn layers(self, channels: usize, classes: usize) -> Layers {
        let (convs, hidden) = match self {
            Self::Small => (small(channels), true),
            Self::Residual { width, depth } => (residual(channels, width, depth), false),
        };
        Layers { convs, hidden, features: self.features(), classes }
    }
}

/// A 3 x 3 convolution, group norm and SiLU.
#[derive(Clone, Debug)]
struct Conv {
    /// What the names of the convolution's parameters begin with.
    conv: String,
    /// What the names of the norm's parameters begin with.
    norm: String,
    /// Channels of input and output.
    channels: [usize; 2],
    stride: usize,
    /// Adds what entered the layer before: the second layer of a residual block.
    closes_block: bool,
}

fn small(channels: usize) -> Vec<Conv> {
    let [first, second, last] = SMALL;
    let widths = [[channels, first], [first, second], [second, second], [second, last]];
    let layer = |(index, channels): (usize, [usize; 2])| Conv {
        conv: format!("conv{}", index + 1),
        norm: format!("norm{}", index + 1),
        channels,
        stride: 1 + index % 2,
        closes_block: false,
    };
    widths.into_iter().enumerate().map(layer).collect()
}

fn residual(channels: usize, width: usize, depth: usize) -> Vec<Conv> {
    let layer = |name: String, channels: [usize; 2], stride: usize, closes_block: bool| Conv {
        conv: format!("{name}.conv"),
        norm: format!("{name}.norm"),
        channels,
        stride,
        closes_block,
    };
    let mut layers = vec![layer("stem".into(), [channels, width / 2], 1, false)];
    for level in 0..LEVELS {
        let c = width << level;
        layers.push(layer(format!("levels.{level}.halving"), [c / 2, c], 2, false));
        for block in 0..depth {
            let name = format!("levels.{level}.blocks.{block}");
            layers.push(layer(format!("{name}.0"), [c, c], 1, false));
            layers.push(layer(format!("{name}.1"), [c, c], 1, true));
        }
    }
    layers
}

/// The layers of one classifier.
#[derive(Clone, Debug)]
pub(super) struct Layers {
    convs: Vec<Conv>,
    /// Whether a linear layer with SiLU stands between the averages and the features.
    hidden: bool,
    features: usize,
    classes: usize,
}

impl Layers {
    /// Names and shapes of the parameters.
    pub fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let mut shapes = Vec::new();
        for Conv { conv, norm, channels: [input, output], .. } in &self.convs {
            shapes.push((format!("{conv}.weight"), vec![*output, *input, 3, 3]));
            let others = [format!("{conv}.bias"), format!("{norm}.weight"), format!("{norm}.bias")];
            shapes.extend(others.map(|name| (name, vec![*output])));
        }
        let last = self.features;
        let linear = |name: &str, output: usize| {
            [(format!("{name}.weight"), vec![output, last]), (format!("{name}.bias"), vec![output])]
        };
        if self.hidden {
            shapes.extend(linear("features", last));
        }
        shapes.extend(linear("classes", self.classes));
        shapes
    }

    /// Features `[b f]` and logits `[b classes]` of `x` `[b c h w]`, from flat parameters in the order of [`Self::shapes`].
    pub fn forward(&self, parameters: &[Tensor<1>], x: Tensor<4>) -> (Tensor<2>, Tensor<2>) {
        let (convs, linears) = parameters.split_at(4 * self.convs.len());
        let (mut x, mut before) = (x.clone(), x);
        for (layer, part) in self.convs.iter().zip(convs.chunks_exact(4)) {
            let entered = x.clone();
            x = layer.forward(part, x);
            if layer.closes_block {
                x = x + before;
            }
            before = entered;
        }
        let [b, c, _, _] = x.dims();
        let mut features = x.mean_dim(3).mean_dim(2).reshape([b, c]);
        let mut linears = linears.chunks_exact(2);
        if self.hidden
            && let Some(layer) = linears.next()
        {
            features = kernel::silu(linear(layer, features));
        }
        let logits = linears.fold(features.clone(), |x, layer| linear(layer, x));
        (features, logits)
    }
}

impl Conv {
    /// Maps `[b c h w]` to `[b o h/stride w/stride]`, sizes rounded up.
    fn forward(&self, part: &[Tensor<1>], x: Tensor<4>) -> Tensor<4> {
        let [input, output] = self.channels;
        let weight = part[0].clone().reshape([output, input, 3, 3]);
        let x = kernel::conv2d(x, weight, part[1].clone(), self.stride, [1; 4]);
        kernel::group_norm(x, part[2].clone(), part[3].clone(), GROUPS, EPS, true)
    }
}

/// Maps `[b i]` to `[b o]`.
fn linear(part: &[Tensor<1>], x: Tensor<2>) -> Tensor<2> {
    let (output, input) = (part[1].dims()[0], x.dims()[1]);
    kernel::linear(x, part[0].clone().reshape([output, input]), part[1].clone())
}
