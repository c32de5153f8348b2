//! A server as clients meet it, over sockets.

mod client;
mod guard;
mod inside;
mod jobs;
mod limits;
mod openai;
mod runs;
mod samples;
mod shutdown;

use burn::tensor::Device;
use client::get;
use gmflow::checkpoint::{DataInfo, DataKind, Model, ModelInfo, Precision};
use gmflow::network::{GmDitConfig, Mlp2dConfig, NetworkConfig};
use gmflow_eval::ModelOptions;
use gmflow_server::{ModelSource, Server, ServerConfig};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A server that runs in this process until it is dropped.
struct Running {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Running {
    /// Waits until it has ended.
    fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server ends well");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn mnist() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/mnist")
}

/// A transformer of drawn weights for images of 8x8 pixels in three classes.
fn tiny(folder: &Path) {
    let data = DataInfo { channels: 1, height: 8, width: 8, kind: DataKind::Image };
    let names = ["cat", "dog", "owl"].map(String::from).to_vec();
    save(folder, ModelInfo { classes: Some(names), ..ModelInfo::new(tiny_network(), data) });
}

fn tiny_network() -> NetworkConfig {
    NetworkConfig::GmDit(GmDitConfig {
        num_gaussians: 3,
        num_attention_heads: 2,
        attention_head_dim: 8,
        num_layers: 2,
        sample_size: 8,
        patch_size: 2,
        in_channels: 1,
        num_embeds_ada_norm: 3,
        ..GmDitConfig::default()
    })
}

/// A perceptron of drawn weights for points.
fn points(folder: &Path) {
    let config =
        Mlp2dConfig { num_gaussians: 4, hidden_dim: 16, embed_dim: 8, mean_spread: 1.0, ..Mlp2dConfig::default() };
    let data = DataInfo { channels: 2, height: 1, width: 1, kind: DataKind::Points };
    save(folder, ModelInfo::new(NetworkConfig::Mlp2d(config), data));
}

fn save(folder: &Path, info: ModelInfo) {
    let network = info.network.init(7, &Device::flex()).expect("a network");
    Model { info, network, spectrum: None, vae: None }.save(folder, &[], Precision::F32).expect("a model folder");
}

fn source(id: &str, folder: PathBuf) -> ModelSource {
    ModelSource { id: id.into(), folder, options: ModelOptions::default() }
}

/// Starts a server with the models `tiny` and `points`, and what `change` changes.
fn start(change: impl FnOnce(&mut ServerConfig, &Path)) -> Running {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = ServerConfig::new(Device::flex(), "cpu");
    config.bind = "127.0.0.1:0".parse().unwrap();
    // However slow this machine is at the moment.
    (config.limits.wait, config.limits.time) = (Duration::from_secs(100_000), Duration::from_secs(1_000_000));
    for (id, make) in [("tiny", tiny as fn(&Path)), ("points", points)] {
        let path = folder.path().join(id);
        make(&path);
        config.models.push(source(id, path));
    }
    change(&mut config, folder.path());
    let server = Server::bind(config).expect("a server");
    let (address, stop) = (server.address(), Arc::new(AtomicBool::new(false)));
    let flag = Arc::clone(&stop);
    let thread = std::thread::spawn(move || server.run(&flag).expect("the server runs"));
    let running = Running { address, stop, thread: Some(thread), _folder: folder };
    while get(running.address, "/readyz").status != 200 {
        std::thread::sleep(Duration::from_millis(10));
    }
    running
}

/// A server with these two models and nothing else.
fn plain() -> Running {
    start(|_, _| {})
}
