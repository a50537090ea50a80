//! `girih inspect`: what is in a checkpoint.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use girih_model::checkpoint::format;
use girih_model::checkpoint::quantized::Quantization;
use girih_model::checkpoint::source::ByteSource;
use girih_model::checkpoint::table::TensorTable;
use girih_model::checkpoint::weights::Weights;
use girih_model::network::arch::KNOWN;
use girih_model::run::memory::{self, Choice};
use girih_model::{Config, LoadError, SessionOptions, WeightPolicy};
use serde_json::json;

use crate::Global;
use crate::error::Failure;
use crate::models;

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
        if let Some(path) = &self.dir {
            models::must_exist(path)?;
        }
        let (source, name) = (models::source(self.dir.as_deref()), models::name(self.dir.as_deref()));
        let named = |e: LoadError| Failure::Model { name: name.clone(), source: e.into() };
        let source = format::checkpoint(source, &KNOWN).await.map_err(named)?;
        let config = girih_model::load_config(&*source).await.map_err(named)?;
        let table = TensorTable::open(&*source).await.map_err(named)?;
        let mut out = std::io::stdout().lock();
        let tensors: Vec<_> = table.iter().collect();
        let weight_bytes = table.bytes();
        let (groups, dense) = modules(source.clone(), &config, &table).await.map_err(named)?;
        let parameters = dense + groups.iter().map(|g| g.parameters).sum::<u64>();
        let session = SessionOptions::default();
        let needs =
            |tokens: u32| memory::demand(&config, weight_bytes, &Choice::new(None, tokens, Some(session)));
        let contexts: Vec<u32> = [512, 2048, 8192, 32_768, 131_072]
            .into_iter()
            .filter(|&t| t < config.max_context)
            .chain([config.max_context])
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
                "memory": contexts.iter().map(|&t| json!({ "context": t, "cache_bytes": needs(t).cache,
                    "scratch_bytes": needs(t).scratch, "total_bytes": needs(t).total() })).collect::<Vec<_>>(),
                "quantised": groups.iter().map(|g| json!({ "format": g.format, "bits_per_weight": g.bits_per_weight(),
                    "activation": g.activation, "transform": g.transform, "modules": g.modules,
                    "unknown_columns": g.unknown_columns, "parameters": g.parameters })).collect::<Vec<_>>(),
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
        for g in &groups {
            writeln!(
                out,
                "{} modules of format {}: {:.3} bits per weight, activations {}, transform of x {}{}",
                g.modules,
                g.format,
                g.bits_per_weight(),
                g.activation,
                g.transform,
                match g.unknown_columns {
                    0 => String::new(),
                    unknown =>
                        format!(" (columns of {unknown} unknown: counted with the padding of their rows)"),
                }
            )?;
        }
        if !groups.is_empty() {
            writeln!(out)?;
        }
        writeln!(out, "{:>9}  {:>12}  {:>12}  {:>12}", "context", "cache (f32)", "intermediate", "total")?;
        for tokens in contexts {
            let needs = needs(tokens);
            let [cache, scratch, total] = [needs.cache, needs.scratch, needs.total()].map(megabytes);
            writeln!(out, "{tokens:>9}  {cache:>12}  {scratch:>12}  {total:>12}")?;
        }
        writeln!(out)?;
        for t in tensors {
            writeln!(out, "{:<60} {:>5} {:?}", t.name, t.dtype.name(), t.shape)?;
        }
        Ok(())
    }
}

/// Quantised modules that are alike.
struct Group {
    format: String,
    activation: String,
    transform: String,
    modules: u64,
    /// Modules whose columns nothing tells, so that those of the padding count as well.
    unknown_columns: u64,
    parameters: u64,
    bits: f64,
}

impl Group {
    fn bits_per_weight(&self) -> f64 {
        self.bits / self.parameters as f64
    }
}

/// Groups of quantised modules, and the number of parameters of the other tensors.
async fn modules(
    source: Arc<dyn ByteSource>,
    config: &Config,
    table: &TensorTable,
) -> Result<(Vec<Group>, u64), LoadError> {
    let quantization = Quantization::open(&*source, &config.raw, table).await?;
    let names: Vec<String> = quantization.modules.keys().cloned().collect();
    let weights = Weights::with_quantization(source, table.clone(), quantization, WeightPolicy::default());
    let mut groups: Vec<Group> = Vec::new();
    for name in names {
        let weight = format!("{name}.weight");
        let Some(stored) = weights.stored(&weight) else { continue };
        let mut module = None;
        let tells = stored.tells_columns(weights.scope(&name).tensors());
        if let (false, Some(k)) = (tells, columns(config, &name)) {
            // The family may have other sizes; if so, the words do not fit.
            module = weights.module(&weight, Some(k)).await.ok().flatten();
        }
        let unknown_columns = u64::from(!tells && module.is_none());
        if module.is_none() {
            module = weights.module(&weight, None).await?;
        }
        let Some(m) = module else { continue };
        let (format, activation) = (m.format.to_string(), m.activation.to_string());
        let (transform, parameters) = (m.input.describe(), u64::from(m.n) * u64::from(m.k));
        let bits = m.format.bits_per_weight(m.k) * parameters as f64;
        let alike =
            |g: &&mut Group| (&g.format, &g.activation, &g.transform) == (&format, &activation, &transform);
        if let Some(g) = groups.iter_mut().find(alike) {
            g.modules += 1;
            g.unknown_columns += unknown_columns;
            g.parameters += parameters;
            g.bits += bits;
        } else {
            let modules = 1;
            groups.push(Group { format, activation, transform, modules, unknown_columns, parameters, bits });
        }
    }
    // Opening a module uses all its tensors.
    let unused = weights.report().unused;
    let dense = unused.iter().filter_map(|n| table.get(n)).map(|t| t.shape.iter().product::<u64>()).sum();
    Ok((groups, dense))
}

/// Columns of a linear layer by its usual name.
fn columns(config: &Config, module: &str) -> Option<u32> {
    Some(match module.rsplit('.').next()? {
        "q_proj" | "k_proj" | "v_proj" | "qkv_proj" | "gate_proj" | "up_proj" | "gate_up_proj" | "fc1"
        | "lm_head" => config.hidden_size,
        "o_proj" => config.num_attention_heads.checked_mul(config.head_dim)?,
        "down_proj" | "fc2" => config.intermediate_size,
        _ => return None,
    })
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use girih_model::checkpoint::source::MemorySource;

    use super::*;

    /// 90 columns in rows that are padded to 96: told by the configuration for usual names, unknown for others.
    #[test]
    fn columns_of_padded_rows() {
        let (mut header, mut at) = (serde_json::Map::new(), 0);
        let mut described = serde_json::Map::new();
        for name in ["a.q_proj", "a.down_proj", "a.other"] {
            for (kind, words) in [("weight_codes", 16), ("weight_scales", 2)] {
                let (name, end) = (format!("{name}.{kind}"), at + 4 * 4 * words);
                let entry = json!({ "dtype": "U32", "shape": [4, words], "data_offsets": [at, end] });
                header.insert(name, entry);
                at = end;
            }
            described.insert(name.into(), json!({ "format": "int5-g32-f16-z16" }));
        }
        let header = serde_json::to_vec(&header).expect("JSON");
        let file = [&(header.len() as u64).to_le_bytes()[..], &header, &vec![0; at]].concat();
        let config = json!({ "model_type": "llama", "vocab_size": 8, "hidden_size": 90, "intermediate_size": 200,
            "num_hidden_layers": 1, "num_attention_heads": 1, "quantization_config":
            { "quant_method": "girih", "version": 1, "modules": described } });
        let config = Config::parse(config.to_string().as_bytes()).expect("a configuration");
        let source: Arc<dyn ByteSource> = Arc::new(MemorySource::new().with("model.safetensors", file));
        let table = pollster::block_on(TensorTable::open(&*source)).expect("a table");
        let (groups, dense) = pollster::block_on(modules(source, &config, &table)).expect("no error");
        let [group] = groups.as_slice() else { panic!("{} groups", groups.len()) };
        assert_eq!((group.modules, group.unknown_columns, dense), (3, 2, 0));
        assert_eq!(group.parameters, 4 * (90 + 96 + 96));
    }
}
