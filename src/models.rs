//! Loading the model that a command names.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use girih_kernels::Gpu;
use girih_model::source::{ByteSource, DirSource};
use girih_model::synthetic::SyntheticSource;
use girih_model::{LoadOptions, Model};
use girih_ops::WeightType;
use indicatif::{ProgressBar, ProgressStyle};

use crate::Global;
use crate::error::Failure;

/// Which model, and how it is put on the GPU.
#[derive(Clone, Debug, Args)]
pub struct ModelArgs {
    /// Checkpoint folder in the Hugging Face layout; the built-in story model if left out
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Tokens of prompt and answer that fit the cache
    #[arg(long, value_name = "TOKENS")]
    pub context: Option<u32>,
    /// Store matrices as f32, f16 or bf16 instead of the checkpoint's type
    #[arg(long, value_name = "TYPE", value_parser = parse_weight_type)]
    pub weights: Option<WeightType>,
}

fn parse_weight_type(s: &str) -> Result<WeightType, String> {
    match s {
        "f32" => Ok(WeightType::F32),
        "f16" => Ok(WeightType::F16),
        "bf16" => Ok(WeightType::Bf16),
        other => Err(format!("{other:?} is not f32, f16 or bf16")),
    }
}

impl ModelArgs {
    /// The files of the model.
    pub fn source(&self) -> Arc<dyn ByteSource> {
        match &self.model {
            Some(dir) => Arc::new(DirSource::new(dir)),
            None => Arc::new(crate::embedded::source()),
        }
    }

    /// What messages call the model.
    pub fn name(&self) -> String {
        self.model.as_ref().map_or_else(|| crate::embedded::NAME.to_owned(), |d| d.display().to_string())
    }

    /// Loads it.
    pub async fn load(&self, gpu: &Gpu, global: &Global) -> Result<Arc<Model>, Failure> {
        load(gpu, self.source(), self.options(), &self.name(), global).await
    }

    fn options(&self) -> LoadOptions {
        LoadOptions { context: self.context, weight_type: self.weights }
    }

    /// Loads a synthetic checkpoint.
    pub async fn load_synthetic(
        &self,
        gpu: &Gpu,
        preset: &str,
        global: &Global,
    ) -> Result<Arc<Model>, Failure> {
        load(gpu, Arc::new(SyntheticSource::new(preset)?), self.options(), preset, global).await
    }
}

/// Loads a checkpoint, with a progress bar.
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
    let model = Model::load(gpu, source, options, move |p| {
        shown.set_length(p.total);
        shown.set_position(p.loaded);
    })
    .await;
    bar.finish_and_clear();
    model.map_err(|source| Failure::Model { name: name.to_owned(), source: source.into() })
}
