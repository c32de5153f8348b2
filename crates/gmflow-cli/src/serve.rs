//! `gmflow serve` and `gmflow ui`: models and runs over HTTP.

use crate::allocator;
use crate::args::{ModelArgs, ServeArgs, ServerArgs, UiArgs};
use crate::checkpoint_path::resolve;
use crate::device::device;
use crate::failure::usage;
use crate::local;
use crate::output;
use crate::signals::Signals;
use anyhow::{Context, Result, anyhow};
use gmflow::checkpoint::model_folder;
use gmflow::kernel::PrecisionChoice;
use gmflow_files::is_run;
use gmflow_server::{Error, ModelSource, Server, ServerConfig, ServerLimits};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Ports that are tried where the one of the page is taken.
const PORTS: u16 = 20;

/// Runs `gmflow serve`.
pub fn run(arguments: &ServeArgs) -> Result<()> {
    if arguments.models.is_empty() && arguments.runs.is_none() {
        return Err(usage("MODEL", "at least one model, or --runs DIR for training runs", "neither"));
    }
    let models = arguments.models.iter().map(|named| source(named, &arguments.model)).collect::<Result<Vec<_>>>()?;
    if let Some(runs) = &arguments.runs {
        local::expect([runs.as_path()])?;
    }
    let mut config = config(&arguments.server, &arguments.model, &arguments.device.name)?;
    (config.models, config.runs) = (models, arguments.runs.clone());
    serve(Server::bind(config).map_err(of_server)?)
}

/// Runs `gmflow ui`.
pub fn show(arguments: &UiArgs) -> Result<()> {
    let folder = &arguments.folder;
    local::expect([folder.as_path()])?;
    let mut config = config(&arguments.server, &arguments.model, &arguments.device.name)?;
    if !is_run(folder) && model_folder(folder).is_ok() {
        config.models.push(source(&folder.display().to_string(), &arguments.model)?);
    } else {
        config.runs = Some(folder.clone());
    }
    // Another page may be open already.
    let first = config.bind.port();
    for port in (first..first.saturating_add(PORTS)).skip(1) {
        match Server::bind(config.clone()) {
            Err(Error::Bind { source, .. }) if source.kind() == std::io::ErrorKind::AddrInUse => {
                config.bind.set_port(port);
            }
            bound => return serve(bound.map_err(of_server)?),
        }
    }
    serve(Server::bind(config).map_err(of_server)?)
}

/// Says where, and serves until a signal comes.
fn serve(server: Server) -> Result<()> {
    allocator::give_freed_memory_back();
    let signals = Signals::listen("finishing what was begun")?;
    output::line(&format!("http://{}", server.address()))?;
    server.run(signals.stop()).map_err(of_server)
}

/// A model as it is named: `NAME=FOLDER`, or a folder that gives the name.
fn source(named: &str, model: &ModelArgs) -> Result<ModelSource> {
    let (id, path) = match named.split_once('=') {
        Some((id, path)) if !Path::new(named).exists() => (Some(id.to_owned()), path),
        _ => (None, named),
    };
    let folder = resolve(Path::new(path), &model.published)?;
    let own = || {
        let path = fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.replace(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c), "-")
    };
    Ok(ModelSource { id: id.unwrap_or_else(own), folder, options: model.options(PrecisionChoice::Auto) })
}

fn config(server: &ServerArgs, model: &ModelArgs, device_name: &str) -> Result<ServerConfig> {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let megabytes = |megabytes: u32| (megabytes as usize) << 20;
    let default = ServerLimits::default();
    let limits = ServerLimits {
        samples: [server.max_samples, server.max_points],
        steps: server.max_steps,
        batch: [server.batch, default.batch[1]],
        queue: server.max_queue,
        wait: seconds(server.max_wait),
        time: Duration::from_secs(server.max_seconds as u64),
        run: Duration::from_secs(server.max_job_seconds as u64),
        streams: server.max_streams,
        connections: server.max_connections,
        keep: seconds(server.keep),
        keep_bytes: megabytes(server.keep_memory),
        model_bytes: server.model_memory.map(|size| megabytes(size) as u64),
        idle: server.idle.map(seconds),
        grace: seconds(server.grace),
        ..default
    };
    let key = server.key_file.as_deref().map(key).transpose()?;
    Ok(ServerConfig {
        bind: server.bind,
        run_options: model.options(PrecisionChoice::Auto),
        key,
        hosts: server.host.clone(),
        origins: server.cors_origin.clone(),
        page: server.page.clone(),
        limits,
        ..ServerConfig::new(device(device_name)?, device_name)
    })
}

/// The key in a file, without the end of the line.
fn key(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("--key-file {}", path.display()))?;
    match text.trim() {
        "" => Err(anyhow!("--key-file {}: expected a key, got an empty file", path.display())),
        key => Ok(key.to_owned()),
    }
}

/// An error of the server, with the options that it is about.
fn of_server(error: Error) -> anyhow::Error {
    match error {
        Error::Config { field, expected, got } if field == "key" => usage("--key-file", expected, got),
        // What stands on the command line without an option.
        Error::Config { field, expected, got } if field.starts_with("model") => usage(&field, expected, got),
        Error::Config { field, expected, got } => usage(&format!("--{field}"), expected, got),
        Error::Bind { address, source } => anyhow!("--bind {address}: {source}"),
        other => other.into(),
    }
}
