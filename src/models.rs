//! Loading the model that a command names.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use girih_kernels::Gpu;
use girih_kernels::selftest::Kept;
use girih_model::checkpoint::source::{ByteSource, DirSource};
use girih_model::checkpoint::synthetic::SyntheticSource;
use girih_model::{
    Eviction, ExpertMemory, LoadError, LoadOptions, Model, Prefetch, SessionOptions, WeightPolicy,
    weight_format,
};
use girih_ops::{QuantActivation, WeightFormat};
use indicatif::{ProgressBar, ProgressStyle};

use crate::embedded::{DENSE, Embedded};
use crate::error::Failure;
use crate::{Global, device};

/// Which model, and how it is put on the GPU.
#[derive(Clone, Debug, Args)]
pub struct ModelArgs {
    /// Checkpoint folder in the Hugging Face layout or GGUF file, or a built-in story model: fable-5m, which is taken if left out,
    /// or fable-moe
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Tokens of prompt and answer that fit the cache
    #[arg(long, value_name = "TOKENS")]
    pub context: Option<u32>,
    /// Store linear layers as f32, f16, bf16, int8, int4, mxfp4, nvfp4 or a format like int4-g128-f16-z8
    #[arg(long, value_name = "FORMAT", value_parser = parse_weights)]
    pub weights: Option<WeightFormat>,
    /// Multiply quantised layers with activations of type float, int8 or one like int8-token
    #[arg(long, value_name = "TYPE", value_parser = parse_activations)]
    pub activations: Option<QuantActivation>,
    /// Keep so many bytes of experts on the GPU, like 800M or 1.5G, and read the others when they are chosen (mixtures of experts)
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub expert_memory: Option<u64>,
    /// Which expert makes room: the longest unused (lru) or the least often used (lfu)
    #[arg(long, value_name = "RULE", value_enum, requires = "expert_memory", default_value_t = EvictionRule::Lru)]
    pub expert_eviction: EvictionRule,
    /// Read experts before they are chosen: those that the next layer's router would choose of this layer's input (gate), or those
    /// that have followed so far (statistics)
    #[arg(long, value_name = "GUESS", value_enum, requires = "expert_memory", default_value_t = Guess::Off)]
    pub expert_prefetch: Guess,
}

/// What the next layer's experts are guessed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Guess {
    Off,
    Gate,
    Statistics,
}

/// Which expert makes room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EvictionRule {
    Lru,
    Lfu,
}

/// How the cache of a conversation is kept.
#[derive(Clone, Copy, Debug, Args)]
pub struct SessionArgs {
    /// Keep keys and values as f32, or as f16 in half the memory
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = CacheType::F32)]
    cache: CacheType,
}

/// Type of keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CacheType {
    F32,
    F16,
}

impl SessionArgs {
    /// Options of a session of one conversation.
    pub fn options(self) -> SessionOptions {
        SessionOptions { f16_cache: self.cache == CacheType::F16, ..SessionOptions::default() }
    }
}

fn parse_weights(s: &str) -> Result<WeightFormat, String> {
    let names = "neither f32, f16, bf16, int8, int4, mxfp4, nvfp4 nor a format";
    weight_format(s).map_err(|e| format!("{names}: {e}"))
}

/// `1500000`, `800M`, `1.5G`: K, M and G are powers of 1000, Ki, Mi and Gi of 1024.
fn parse_bytes(s: &str) -> Result<u64, String> {
    const UNITS: [(&str, f64); 6] =
        [("Ki", 1024.0), ("Mi", 1_048_576.0), ("Gi", 1_073_741_824.0), ("K", 1e3), ("M", 1e6), ("G", 1e9)];
    let bare = s.strip_suffix('B').unwrap_or(s);
    let unit = UNITS.iter().find_map(|&(unit, size)| Some((bare.strip_suffix(unit)?, size)));
    let (number, size) = unit.unwrap_or((bare, 1.0));
    if let (Ok(bytes), 1.0) = (number.parse::<u64>(), size) {
        return Ok(bytes);
    }
    let number: f64 = number.trim().parse().map_err(|_| "not a number of bytes like 800M or 1.5G")?;
    let bytes = number * size;
    if !(0.0..9e18).contains(&bytes) {
        return Err("must be 0 to 9e18 bytes".into());
    }
    Ok(bytes as u64)
}

fn parse_activations(s: &str) -> Result<QuantActivation, String> {
    if s == "int8" {
        Ok(QuantActivation::INT8)
    } else {
        s.parse::<QuantActivation>().map_err(|e| e.to_string())
    }
}

/// The files at a path, or of the built-in model that it names; without one those of the dense one.
pub fn source(path: Option<&Path>) -> Arc<dyn ByteSource> {
    match path {
        None => Arc::new(DENSE.source()),
        Some(path) => match Embedded::at(path) {
            Some(model) => Arc::new(model.source()),
            None => Arc::new(DirSource::at(path)),
        },
    }
}

/// What messages call the model at a path.
pub fn name(path: Option<&Path>) -> String {
    path.map_or_else(|| DENSE.name.to_owned(), |path| path.display().to_string())
}

impl ModelArgs {
    /// The files of the model.
    pub fn source(&self) -> Arc<dyn ByteSource> {
        source(self.model.as_deref())
    }

    /// What messages call the model.
    pub fn name(&self) -> String {
        name(self.model.as_deref())
    }

    /// Loads it, if there is memory for the session that will be opened on it.
    pub async fn load(
        &self,
        gpu: &Gpu,
        session: Option<SessionOptions>,
        global: &Global,
    ) -> Result<Arc<Model>, Failure> {
        if let Some(path) = &self.model {
            must_exist(path)?;
        }
        load(gpu, self.source(), self.options(session), &self.name(), global).await
    }

    fn options(&self, session: Option<SessionOptions>) -> LoadOptions {
        let weights = WeightPolicy { force: self.weights, activations: self.activations };
        let eviction = match self.expert_eviction {
            EvictionRule::Lru => Eviction::Lru,
            EvictionRule::Lfu => Eviction::Lfu,
        };
        let prefetch = match self.expert_prefetch {
            Guess::Off => Prefetch::Off,
            Guess::Gate => Prefetch::Gate,
            Guess::Statistics => Prefetch::Statistics,
        };
        let experts = self.expert_memory.map(|bytes| ExpertMemory { bytes, eviction, prefetch });
        LoadOptions { context: self.context, weights, experts, session }
    }

    /// Loads a synthetic checkpoint, which is called so.
    pub async fn load_synthetic(
        &self,
        gpu: &Gpu,
        source: SyntheticSource,
        preset: &str,
        session: SessionOptions,
        global: &Global,
    ) -> Result<Arc<Model>, Failure> {
        load(gpu, Arc::new(source), self.options(Some(session)), preset, global).await
    }
}

/// A model that is only looked at: [`ModelArgs`], with the path also as an argument, and synthetic ones.
#[derive(Clone, Debug, Args)]
pub struct LookedAt {
    /// Checkpoint folder or GGUF file; the built-in story model if left out
    #[arg(value_name = "MODEL", conflicts_with = "model")]
    path: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    session: SessionArgs,
    /// A known shape instead of a checkpoint: llama-79m, llama-300mb, llama-3.2-1b, llama-3.1-8b, qwen3-moe-13m,
    /// qwen3-30b-a3b-layer, gpt-oss-20b-layer, olmoe-1b-7b
    #[arg(long, value_name = "PRESET", conflicts_with_all = ["model", "path"])]
    synthetic: Option<String>,
}

impl LookedAt {
    /// What messages call the model.
    pub fn name(&self) -> String {
        self.synthetic.clone().unwrap_or_else(|| self.of().name())
    }

    /// How its cache is made.
    pub fn session(&self) -> SessionOptions {
        self.session.options()
    }

    fn of(&self) -> ModelArgs {
        ModelArgs { model: self.path.clone().or(self.model.model.clone()), ..self.model.clone() }
    }

    /// Tests the kernels that the model will use, where they have no verdict yet. The device with what failed on its block
    /// list, and the model without memory.
    pub async fn load(&self, gpu: &Gpu, global: &Global) -> Result<(Gpu, Arc<Model>), Failure> {
        let args = self.of();
        if let Some(path) = &args.model {
            must_exist(path)?;
        }
        let source: Arc<dyn ByteSource> = match &self.synthetic {
            Some(preset) => Arc::new(SyntheticSource::new(preset)?),
            None => args.source(),
        };
        let options = args.options(Some(self.session()));
        let mut kept = Kept::open(gpu, device::cache_dir().as_deref());
        let tested = Model::test(gpu, &source, options, &mut kept.verdicts, |_| ()).await;
        kept.save();
        let failed = |source: LoadError| Failure::Model { name: self.name(), source: source.into() };
        let (gpu, _) = tested.map_err(failed)?;
        note_blocked(&gpu, global);
        let model = Model::load_recording(&gpu, &source, options).await.map_err(failed)?;
        Ok((gpu, model))
    }
}

fn note_blocked(gpu: &Gpu, global: &Global) {
    for key in &gpu.caps().blocked {
        global.note(&format_args!(
            "{key} gives wrong results on this device and is not used (see `girih doctor`)"
        ));
    }
}

/// A path that is not there, told with what a model is and where one comes from.
pub fn must_exist(path: &Path) -> Result<(), Failure> {
    if path.exists() || Embedded::at(path).is_some() {
        return Ok(());
    }
    Err(Failure::NoModel { name: path.display().to_string() })
}

/// Tests the kernels that a checkpoint's model will use, where they have no verdict yet, and loads it, with a progress
/// bar. What fails the test is not used.
pub async fn load(
    gpu: &Gpu,
    source: Arc<dyn ByteSource>,
    options: LoadOptions,
    name: &str,
    global: &Global,
) -> Result<Arc<Model>, Failure> {
    let bar = if std::io::stderr().is_terminal() && !global.json {
        ProgressBar::new(0)
    } else {
        ProgressBar::hidden()
    };
    if let Ok(style) = ProgressStyle::with_template("loading {msg} {wide_bar} {bytes}/{total_bytes}") {
        bar.set_style(style);
    }
    bar.set_message(name.to_owned());
    let shown = bar.clone();
    let mut kept = Kept::open(gpu, device::cache_dir().as_deref());
    let model = Model::load_tested(gpu, source, options, &mut kept.verdicts, move |p| {
        shown.set_length(p.total);
        shown.set_position(p.loaded);
    })
    .await;
    bar.finish_and_clear();
    kept.save();
    let (model, report) =
        model.map_err(|source| Failure::Model { name: name.to_owned(), source: source.into() })?;
    tracing::debug!("self-test: {} launches", report.ran);
    note_blocked(model.gpu(), global);
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        for (text, want) in [
            ("0", 0),
            ("18446744073709551615", u64::MAX),
            ("800M", 800_000_000),
            ("1.5G", 1_500_000_000),
            ("1.5GB", 1_500_000_000),
            ("3Ki", 3072),
            ("2MiB", 2 << 20),
            ("1Gi", 1 << 30),
            ("64K", 64_000),
        ] {
            assert_eq!(parse_bytes(text), Ok(want), "{text}");
        }
        for text in ["", "M", "-1M", "1T", "nanG", "infG", "1e30", "12 apples", "99999999999G"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
