//! One model: what is known of it before it is loaded, and the loaded model.

use crate::engine::Pace;
use crate::refusal::{Answer, Refusal};
use burn::tensor::{Device, Tensor};
use gmflow::checkpoint::{DataKind, Model, ModelInfo};
use gmflow::kernel::{MatmulPrecision, in_pool, is_same_in_any_batch};
use gmflow::limits;
use gmflow::network::Denoiser;
use gmflow_eval::models::average;
use gmflow_eval::sampler::{Source, describe};
use gmflow_eval::{LoadedModel, ModelOptions, SamplerOptions};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

/// A model that is in memory.
#[derive(Debug)]
pub(crate) struct Served {
    pub id: String,
    pub model: Model,
    pub precision: MatmulPrecision,
    pub device: Device,
    /// Whether rows of several requests may share a network call: a row's result does not depend on the others.
    pub joined: bool,
    pub pace: Arc<Pace>,
}

/// Where a model is on its way into memory.
#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Unloaded,
    Loading,
    Loaded(Arc<Served>),
    Failed(String),
}

/// A model by its id.
#[derive(Debug)]
pub(crate) struct Entry {
    pub id: String,
    pub folder: PathBuf,
    pub options: ModelOptions,
    /// The moving average that is loaded.
    pub average: Option<String>,
    pub info: ModelInfo,
    /// The run whose checkpoint it is.
    pub run: Option<String>,
    pub parameters: u64,
    pub pace: Arc<Pace>,
    created: u64,
    state: RwLock<State>,
    /// Held while the model is loaded, so that it is loaded once.
    loading: Mutex<()>,
    used: Mutex<Instant>,
}

impl Entry {
    /// Reads the description of the model in a folder, without its weights.
    pub fn new(id: String, folder: PathBuf, options: ModelOptions, run: Option<String>) -> Answer<Self> {
        let info = ModelInfo::load(&folder)?;
        let average = average(&folder, options.ema.as_deref())?;
        let pace = Arc::new(Pace::new(info.data.kind == DataKind::Points));
        let parameters = u64::try_from(limits::parameters(&info.network)?).unwrap_or(u64::MAX);
        let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(Self {
            id,
            folder,
            options,
            average,
            info,
            run,
            parameters,
            pace,
            created,
            state: RwLock::default(),
            loading: Mutex::new(()),
            used: Mutex::new(Instant::now()),
        })
    }

    fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    pub fn loaded(&self) -> Option<Arc<Served>> {
        match self.state() {
            State::Loaded(served) => Some(served),
            _ => None,
        }
    }

    /// Whether requests share network calls, as far as is known.
    pub fn is_joined(&self) -> bool {
        match &*self.state.read().unwrap_or_else(PoisonError::into_inner) {
            State::Loaded(served) => served.joined,
            _ => true,
        }
    }

    /// The model, which is loaded where it is not in memory; `make_room` is called before.
    pub fn load(&self, device: &Device, make_room: impl FnOnce()) -> Answer<Arc<Served>> {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        if let Some(served) = self.loaded() {
            return Ok(served);
        }
        let _one = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(served) = self.loaded() {
            return Ok(served);
        }
        make_room();
        self.set(State::Loading);
        match self.read(device) {
            Ok(served) => {
                let served = Arc::new(served);
                self.set(State::Loaded(Arc::clone(&served)));
                Ok(served)
            }
            Err(error) => {
                let message = error.to_string();
                log::error!("model {}: {message}", self.id);
                self.set(State::Failed(message.clone()));
                Err(Refusal::failed(format!("model {}: {message}", self.id)))
            }
        }
    }

    fn read(&self, device: &Device) -> gmflow_eval::Result<Served> {
        let start = Instant::now();
        let LoadedModel { model, precision, .. } = LoadedModel::open(&self.id, &self.folder, &self.options, device)?;
        let served = Served {
            id: self.id.clone(),
            model,
            precision,
            device: device.clone(),
            joined: is_same_in_any_batch(device),
            pace: Arc::clone(&self.pace),
        };
        served.warm_up();
        log::info!("model {} loaded in {:.1} s", self.id, start.elapsed().as_secs_f64());
        Ok(served)
    }

    /// Gives the memory back where nobody uses the model.
    pub fn unload(&self) -> bool {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let unused = matches!(&*state, State::Loaded(served) if Arc::strong_count(served) == 1);
        if unused {
            *state = State::Unloaded;
        }
        unused
    }

    pub fn idle(&self) -> Duration {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// What its network is computed in on a processor that has it.
    fn precision(&self) -> MatmulPrecision {
        self.info.network.for_sampling(self.options.precision, &Device::flex())
    }

    /// Bytes of its weights, roughly.
    pub fn bytes(&self) -> u64 {
        let each = match self.precision() {
            MatmulPrecision::F32 => 4,
            MatmulPrecision::Bf16 => 2,
            MatmulPrecision::Int8 => 1,
        };
        self.parameters.saturating_mul(each)
    }

    /// Whether samples are points in the plane.
    pub fn is_points(&self) -> bool {
        self.info.data.kind == DataKind::Points
    }

    /// Pixels of a sample as the network sees it.
    pub fn pixels(&self) -> usize {
        self.info.data.height * self.info.data.width
    }

    /// `[c h w]` of a sample as the network sees it.
    pub fn shape(&self) -> [usize; 3] {
        [self.info.data.channels, self.info.data.height, self.info.data.width]
    }

    /// `[h w]` of an image.
    pub fn image_size(&self) -> [usize; 2] {
        let factor = self.info.latent.as_ref().map_or(1, |latent| latent.downsampling);
        [self.info.data.height * factor, self.info.data.width * factor]
    }

    /// The name of a class, where the model has names.
    pub fn class_name(&self, class: usize) -> Option<&str> {
        self.info.classes.as_ref()?.get(class).map(String::as_str)
    }

    /// How samples are made with these settings, as their files say it.
    pub fn made_by(&self, sampler: Value) -> Value {
        // What the network is computed in is known before it is loaded.
        let (precision, _) = self.info.network.computed_in(self.precision(), &Device::flex());
        let source = Source {
            checkpoint: &self.folder,
            ema: self.average.as_deref(),
            variant: self.options.variant.as_deref(),
            vae: self.options.vae.as_deref(),
            noise: None,
            latents: false,
            precision: self.loaded().map_or(precision, |served| served.precision),
        };
        source.made_by(sampler)
    }

    /// What is told of the model.
    pub fn describe(&self, default: bool, device: &str) -> Value {
        let info = &self.info;
        let state = self.state();
        let (state, error) = match &state {
            State::Unloaded => ("unloaded", None),
            State::Loading => ("loading", None),
            State::Loaded(_) => ("loaded", None),
            State::Failed(error) => ("failed", Some(error.as_str())),
        };
        let named = info.classes.as_ref().map_or(0, Vec::len);
        let classes: Vec<Value> = (0..info.network.num_classes())
            .filter(|&class| named == 0 || class < named)
            .map(|class| json!({ "index": class, "name": self.class_name(class) }))
            .collect();
        let sampler = SamplerOptions::default().config(info).map(|config| describe(&config, info.data.kind));
        let loaded = self.loaded();
        let mut told = json!({
            "id": self.id, "object": "model", "owned_by": "gmflow", "created": self.created, "state": state,
            "default": default, "kind": info.data.kind, "shape": self.shape(), "image": self.image_size(),
            "components": info.network.num_gaussians(), "network": info.network.kind(),
            "parameters": self.parameters, "classes": classes, "sampler": sampler.unwrap_or_default(),
            "precision": loaded.as_ref().map_or_else(|| self.precision(), |served| served.precision),
            "device": device, "spectrum": info.spectrum.is_some(),
            "joined": self.is_joined(), "run": self.run, "progress": info.progress,
        });
        if let Some(error) = error {
            told["error"] = json!(error);
        }
        told
    }
}

impl Served {
    /// Makes a few network calls, so that the first request finds everything in its place, and measures how fast they are.
    fn warm_up(&self) {
        let data = self.model.info.data;
        let [c, h, w] = [data.channels, data.height, data.width];
        let device = &self.device;
        self.pace.measure(|rows| {
            let (x_t, t) = (Tensor::zeros([rows, c, h, w], device), Tensor::full([rows], 0.5, device));
            let start = Instant::now();
            let mixture = in_pool(|| self.model.network.forward(x_t, t, None));
            // Work on a GPU is done once its result is read.
            drop(mixture.0.log_std.into_data());
            start.elapsed()
        });
    }
}
