//! `girih inspect`: what is in a checkpoint.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use girih_model::format::gguf;
use girih_model::format::safetensors::TensorTable;
use girih_model::source::{ByteSource, DirSource};
use serde_json::json;

use crate::Global;
use crate::error::Failure;

/// Arguments.
#[derive(Debug, Args)]
pub struct Inspect {
    /// Checkpoint folder or GGUF file; the built-in story model if left out
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Inspect {
    /// Runs the command.
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let source: Arc<dyn ByteSource> = match &self.dir {
            Some(path) => Arc::new(DirSource::at(path)),
            None => Arc::new(crate::embedded::source()),
        };
        let name = self.dir.map_or_else(|| crate::embedded::NAME.to_owned(), |d| d.display().to_string());
        let named = |e: girih_model::LoadError| Failure::Model { name: name.clone(), source: e.into() };
        let source = gguf::checkpoint(source).await.map_err(named)?;
        let config = girih_model::load_config(&*source).await.map_err(named)?;
        let table = TensorTable::open(&*source).await.map_err(named)?;
        let mut out = std::io::stdout().lock();
        let tensors: Vec<_> = table.iter().collect();
        let weight_bytes = table.bytes();
        let parameters: u64 = tensors.iter().map(|t| t.shape.iter().product::<u64>()).sum();
        let cache = |tokens: u32| config.cache_bytes(tokens);
        let contexts: Vec<u32> = [512, 2048, 8192, 32_768, 131_072]
            .into_iter()
            .filter(|&t| t < config.max_position_embeddings)
            .chain([config.max_position_embeddings])
            .collect();
        if global.json {
            let report = json!({
                "model_type": config.model_type,
                "architectures": config.architectures,
                "parameters": parameters,
                "weight_bytes": weight_bytes,
                "hidden_size": config.hidden_size,
                "num_hidden_layers": config.num_hidden_layers,
                "num_attention_heads": config.num_attention_heads,
                "num_key_value_heads": config.num_key_value_heads,
                "head_dim": config.head_dim,
                "vocab_size": config.vocab_size,
                "max_position_embeddings": config.max_position_embeddings,
                "memory": contexts.iter().map(|&t| json!({ "context": t, "cache_bytes": cache(t),
                    "total_bytes": weight_bytes + cache(t) })).collect::<Vec<_>>(),
                "tensors": tensors.iter().map(|t| json!({ "name": t.name, "dtype": t.dtype.name(),
                    "shape": t.shape, "file": t.file })).collect::<Vec<_>>(),
            });
            writeln!(out, "{report}")?;
            return Ok(());
        }
        writeln!(out, "{} ({})", config.model_type, config.architectures.join(", "))?;
        writeln!(
            out,
            "{} layers, hidden {}, {} query heads and {} key/value heads of {}, vocabulary {}",
            config.num_hidden_layers,
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            config.vocab_size
        )?;
        writeln!(out, "{parameters} parameters, {} of weights\n", megabytes(weight_bytes))?;
        writeln!(out, "{:>9}  {:>12}  {:>12}", "context", "cache (f32)", "total")?;
        for tokens in contexts {
            let total = megabytes(weight_bytes + cache(tokens));
            writeln!(out, "{tokens:>9}  {:>12}  {total:>12}", megabytes(cache(tokens)))?;
        }
        writeln!(out)?;
        for t in tensors {
            writeln!(out, "{:<60} {:>5} {:?}", t.name, t.dtype.name(), t.shape)?;
        }
        Ok(())
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
