//! What the network is made of: names, shapes and order.

/// Numbers in a feature vector.
pub const FEATURES: usize = 2048;
/// Classes of the last layer.
pub const CLASSES: usize = 1008;
/// The last layer's weight and bias.
pub const FC: [&str; 2] = ["fc.weight", "fc.bias"];

/// One convolution.
pub struct ConvSpec {
    pub name: String,
    /// `[out in height width]`
    pub shape: [usize; 4],
    pub stride: usize,
    /// Zeros above and below, left and right.
    pub padding: [usize; 2],
}

/// The kinds of pooling, all with a window of 3 x 3.
#[derive(Clone, Copy)]
pub enum Pool {
    /// The largest value, at every second pixel.
    Halve,
    /// The largest value.
    Largest,
    /// The average without the padding.
    Average,
}

/// A way through a block.
pub struct Branch {
    /// What comes first.
    pub pool: Option<Pool>,
    /// Convolutions, one after the other.
    pub convs: &'static [&'static str],
    /// Convolutions side by side after them.
    pub ends: &'static [&'static str],
}

/// One step of the network.
pub enum Stage {
    Conv(&'static str),
    Pool(Pool),
    Block(&'static str, &'static [Branch]),
}

const fn plain(convs: &'static [&'static str]) -> Branch {
    Branch { pool: None, convs, ends: &[] }
}

const fn after(pool: Pool, convs: &'static [&'static str]) -> Branch {
    Branch { pool: Some(pool), convs, ends: &[] }
}

const fn forked(convs: &'static [&'static str], ends: &'static [&'static str]) -> Branch {
    Branch { pool: None, convs, ends }
}

const A: &[Branch] = &[
    plain(&["branch1x1"]),
    plain(&["branch5x5_1", "branch5x5_2"]),
    plain(&["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"]),
    after(Pool::Average, &["branch_pool"]),
];
const B: &[Branch] =
    &[plain(&["branch3x3"]), plain(&["branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"]), after(Pool::Halve, &[])];
const C: &[Branch] = &[
    plain(&["branch1x1"]),
    plain(&["branch7x7_1", "branch7x7_2", "branch7x7_3"]),
    plain(&["branch7x7dbl_1", "branch7x7dbl_2", "branch7x7dbl_3", "branch7x7dbl_4", "branch7x7dbl_5"]),
    after(Pool::Average, &["branch_pool"]),
];
const D: &[Branch] = &[
    plain(&["branch3x3_1", "branch3x3_2"]),
    plain(&["branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3", "branch7x7x3_4"]),
    after(Pool::Halve, &[]),
];
const E_AVERAGE: &[Branch] = &[
    plain(&["branch1x1"]),
    forked(&["branch3x3_1"], &["branch3x3_2a", "branch3x3_2b"]),
    forked(&["branch3x3dbl_1", "branch3x3dbl_2"], &["branch3x3dbl_3a", "branch3x3dbl_3b"]),
    after(Pool::Average, &["branch_pool"]),
];
const E_LARGEST: &[Branch] = &[
    plain(&["branch1x1"]),
    forked(&["branch3x3_1"], &["branch3x3_2a", "branch3x3_2b"]),
    forked(&["branch3x3dbl_1", "branch3x3dbl_2"], &["branch3x3dbl_3a", "branch3x3dbl_3b"]),
    after(Pool::Largest, &["branch_pool"]),
];

/// The network from the image to the last map `[2048 8 8]`.
pub fn stages() -> [Stage; 18] {
    use Stage::{Block, Conv};
    [
        Conv("Conv2d_1a_3x3"),
        Conv("Conv2d_2a_3x3"),
        Conv("Conv2d_2b_3x3"),
        Stage::Pool(Pool::Halve),
        Conv("Conv2d_3b_1x1"),
        Conv("Conv2d_4a_3x3"),
        Stage::Pool(Pool::Halve),
        Block("Mixed_5b", A),
        Block("Mixed_5c", A),
        Block("Mixed_5d", A),
        Block("Mixed_6a", B),
        Block("Mixed_6b", C),
        Block("Mixed_6c", C),
        Block("Mixed_6d", C),
        Block("Mixed_6e", C),
        Block("Mixed_7a", D),
        Block("Mixed_7b", E_AVERAGE),
        Block("Mixed_7c", E_LARGEST),
    ]
}

/// All convolutions.
pub fn convs() -> Vec<ConvSpec> {
    let mut list = List(Vec::new());
    list.add("Conv2d_1a_3x3", 3, 32, [3, 3], Fit::Stride);
    list.add("Conv2d_2a_3x3", 32, 32, [3, 3], Fit::Bare);
    list.add("Conv2d_2b_3x3", 32, 64, [3, 3], Fit::Same);
    list.add("Conv2d_3b_1x1", 64, 80, [1, 1], Fit::Same);
    list.add("Conv2d_4a_3x3", 80, 192, [3, 3], Fit::Bare);
    for (name, channels, pool) in [("Mixed_5b", 192, 32), ("Mixed_5c", 256, 64), ("Mixed_5d", 288, 64)] {
        list.block_a(name, channels, pool);
    }
    list.block_b("Mixed_6a");
    for (name, inner) in [("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)] {
        list.block_c(name, inner);
    }
    list.block_d("Mixed_7a");
    for (name, channels) in [("Mixed_7b", 1280), ("Mixed_7c", 2048)] {
        list.block_e(name, channels);
    }
    list.0
}

/// How a convolution fits its image.
#[derive(Clone, Copy)]
enum Fit {
    /// Zeros around, so that the size stays.
    Same,
    /// No zeros.
    Bare,
    /// No zeros, every second pixel.
    Stride,
}

struct List(Vec<ConvSpec>);

impl List {
    fn add(&mut self, name: &str, input: usize, output: usize, kernel: [usize; 2], fit: Fit) {
        let (stride, padding) = match fit {
            Fit::Same => (1, kernel.map(|size| size / 2)),
            Fit::Bare => (1, [0, 0]),
            Fit::Stride => (2, [0, 0]),
        };
        let shape = [output, input, kernel[0], kernel[1]];
        self.0.push(ConvSpec { name: name.to_owned(), shape, stride, padding });
    }

    /// Convolutions one after the other that keep the size, from `input` channels on.
    fn chain(&mut self, block: &str, mut input: usize, convs: &[(&str, usize, [usize; 2])]) {
        for &(name, output, kernel) in convs {
            self.add(&format!("{block}.{name}"), input, output, kernel, Fit::Same);
            input = output;
        }
    }

    fn block_a(&mut self, block: &str, input: usize, pool: usize) {
        self.chain(block, input, &[("branch1x1", 64, [1, 1])]);
        self.chain(block, input, &[("branch5x5_1", 48, [1, 1]), ("branch5x5_2", 64, [5, 5])]);
        let double = [("branch3x3dbl_1", 64, [1, 1]), ("branch3x3dbl_2", 96, [3, 3]), ("branch3x3dbl_3", 96, [3, 3])];
        self.chain(block, input, &double);
        self.chain(block, input, &[("branch_pool", pool, [1, 1])]);
    }

    fn block_b(&mut self, block: &str) {
        self.add(&format!("{block}.branch3x3"), 288, 384, [3, 3], Fit::Stride);
        self.chain(block, 288, &[("branch3x3dbl_1", 64, [1, 1]), ("branch3x3dbl_2", 96, [3, 3])]);
        self.add(&format!("{block}.branch3x3dbl_3"), 96, 96, [3, 3], Fit::Stride);
    }

    fn block_c(&mut self, block: &str, inner: usize) {
        self.chain(block, 768, &[("branch1x1", 192, [1, 1])]);
        let single = [("branch7x7_1", inner, [1, 1]), ("branch7x7_2", inner, [1, 7]), ("branch7x7_3", 192, [7, 1])];
        self.chain(block, 768, &single);
        let double = [
            ("branch7x7dbl_1", inner, [1, 1]),
            ("branch7x7dbl_2", inner, [7, 1]),
            ("branch7x7dbl_3", inner, [1, 7]),
            ("branch7x7dbl_4", inner, [7, 1]),
            ("branch7x7dbl_5", 192, [1, 7]),
        ];
        self.chain(block, 768, &double);
        self.chain(block, 768, &[("branch_pool", 192, [1, 1])]);
    }

    fn block_d(&mut self, block: &str) {
        self.chain(block, 768, &[("branch3x3_1", 192, [1, 1])]);
        self.add(&format!("{block}.branch3x3_2"), 192, 320, [3, 3], Fit::Stride);
        let long = [("branch7x7x3_1", 192, [1, 1]), ("branch7x7x3_2", 192, [1, 7]), ("branch7x7x3_3", 192, [7, 1])];
        self.chain(block, 768, &long);
        self.add(&format!("{block}.branch7x7x3_4"), 192, 192, [3, 3], Fit::Stride);
    }

    fn block_e(&mut self, block: &str, input: usize) {
        self.chain(block, input, &[("branch1x1", 320, [1, 1])]);
        self.chain(block, input, &[("branch3x3_1", 384, [1, 1])]);
        self.chain(block, 384, &[("branch3x3_2a", 384, [1, 3])]);
        self.chain(block, 384, &[("branch3x3_2b", 384, [3, 1])]);
        self.chain(block, input, &[("branch3x3dbl_1", 448, [1, 1]), ("branch3x3dbl_2", 384, [3, 3])]);
        self.chain(block, 384, &[("branch3x3dbl_3a", 384, [1, 3])]);
        self.chain(block, 384, &[("branch3x3dbl_3b", 384, [3, 1])]);
        self.chain(block, input, &[("branch_pool", 192, [1, 1])]);
    }
}
