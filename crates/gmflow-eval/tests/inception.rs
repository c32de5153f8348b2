//! The Inception network against torch-fidelity's, with the same made-up weights in both (recorded by tests/data/record_inception.py).

use burn::tensor::Device;
use gmflow::network::HostTensor;
use gmflow_eval::features::inception::Inception;
use gmflow_eval::features::resize::Resize;
use safetensors::SafeTensors;
use std::collections::BTreeMap;

fn recorded(name: &str) -> Vec<f32> {
    let tensors = SafeTensors::deserialize(include_bytes!("data/inception.safetensors")).unwrap();
    let view = tensors.tensor(name).unwrap();
    view.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

/// Bytes to [-1, 1].
fn images() -> Vec<f32> {
    recorded("images").iter().map(|byte| byte / 127.5 - 1.0).collect()
}

/// n numbers in [-1, 1) that depend on the name and the position: splitmix64 of FNV-1a.
fn uniform(name: &str, n: usize) -> impl Iterator<Item = f32> {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    (1..=n as u64).map(move |i| {
        let mut z = hash.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}

fn weights() -> BTreeMap<String, HostTensor> {
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let fan_in: usize = shape.iter().skip(1).product();
        let (scale, shift) = match name.as_str() {
            name if name.ends_with("conv.weight") => (((6.0 / fan_in as f64) as f32).sqrt(), 0.0),
            name if name.ends_with("bn.weight") || name.ends_with("running_var") => (0.25, 1.0),
            "fc.weight" => (0.05, 0.0),
            _ => (0.1, 0.0),
        };
        let values = uniform(&name, shape.iter().product()).map(|u| shift + scale * u).collect();
        (name, HostTensor { shape, values })
    };
    Inception::parameters().into_iter().map(tensor).collect()
}

fn close(got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("off by {worst:e} of {largest}");
    assert!(worst <= tolerance * largest, "off by {worst:e}, largest value {largest}");
}

#[test]
fn features_and_logits_are_those_of_torch_fidelity() {
    let network = Inception::from_tensors(weights(), Resize::TorchFidelity, &Device::flex()).unwrap();
    let [features, logits] = network.extract(&images(), [3, 20, 24]).unwrap();
    // 94 layers in f32, whose sums run in another order.
    close(features.values(), &recorded("features"), 2e-5);
    close(logits.values(), &recorded("logits"), 2e-5);
}

#[test]
fn both_ways_of_resizing_are_those_of_the_programs() {
    let first = &images()[..3 * 20 * 24];
    for (resize, name) in
        [(Resize::TorchFidelity, "resized_torch_fidelity"), (Resize::PytorchFid, "resized_pytorch_fid")]
    {
        let got: Vec<f32> = resize.apply(first, [3, 20, 24]).unwrap().into_iter().step_by(997).collect();
        close(&got, &recorded(name), 2e-6);
    }
    let grey = Resize::TorchFidelity.apply(&first[..20 * 24], [1, 20, 24]).unwrap();
    assert_eq!(grey[..299 * 299], grey[2 * 299 * 299..]);
    assert!(Resize::TorchFidelity.apply(first, [2, 20, 24]).is_err());
}

#[test]
fn weights_that_do_not_fit_are_named() {
    let refused = |change: fn(&mut BTreeMap<String, HostTensor>)| {
        let mut tensors = weights();
        change(&mut tensors);
        Inception::from_tensors(tensors, Resize::TorchFidelity, &Device::flex()).unwrap_err().to_string()
    };
    let message = refused(|tensors| drop(tensors.remove("Mixed_6e.branch_pool.bn.bias")));
    assert!(message.contains("Mixed_6e.branch_pool.bn.bias") && message.contains("none"), "{message}");
    let message = refused(|tensors| tensors.get_mut("fc.bias").unwrap().shape = vec![1000]);
    assert!(message.contains("fc.bias") && message.contains("1008") && message.contains("1000"), "{message}");
    let message =
        refused(|tensors| drop(tensors.insert("extra".into(), HostTensor { shape: vec![], values: vec![] })));
    assert!(message.contains("extra"), "{message}");
    let message = refused(|tensors| tensors.get_mut("Conv2d_1a_3x3.conv.weight").unwrap().values[3] = f32::NAN);
    assert!(message.contains("Conv2d_1a_3x3.conv.weight") && message.contains("finite"), "{message}");
}
