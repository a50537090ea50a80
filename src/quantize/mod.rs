//! `girih quantize` from checkpoint to checkpoint: reads dense matrices, calibrates on the GPU, lets
//! [`girih_quantize`] do the numerics, writes codes and scales.
//!
//! Matrices that share an input are one step, and so are those of all experts of a layer: their input is scaled and mixed
//! once for all. Steps are taken in groups whose statistics fit a memory budget: one pass
//! of the calibration text for each group. A finished step is a file in `OUT.partial`, so an interrupted run goes on
//! where it was; the folder gets its name when everything is in it.

pub mod calibrate;
mod digest;
mod error;
mod experts;
mod folder;
pub mod report;
mod statistics;
mod steps;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use girih_model::checkpoint::source::{ByteSource, DirSource, read_whole};
use girih_model::checkpoint::table::{StoredType, TensorTable};
use girih_model::checkpoint::weights::{WeightPolicy, Weights};
use girih_model::{Comparison, EvalOptions, LoadError, LoadOptions, Model, Session, SessionOptions, compare};
use girih_quantize::{HostMix, InputStats, Module, QuantizedLinear, Scheme, quantize_linear};
use indicatif::ProgressBar;
use serde_json::{Map, Value, json};

use crate::error::Failure;
use calibrate::Calibration;
pub use error::Error;
pub use folder::check_target;
use folder::{MANIFEST, Partial, hash};
use statistics::Statistics;
use steps::{LinearStep, Step, fitting, weight};
use writer::{Entry, Origin};

/// Version of the layout of `quantization_config`.
const VERSION: u32 = 1;
/// Bytes of a weight file at most.
const SHARD_BYTES: u64 = 4_000_000_000;
/// Parts of an embedding model.
const MODULES: &str = "modules.json";
/// Bytes of a text file of a checkpoint at most.
const MAX_TEXT: u64 = 256 << 20;

/// What to quantise and how.
pub struct Job<'a> {
    /// The loaded model.
    pub model: &'a Arc<Model>,
    /// Its files.
    pub source: &'a Arc<dyn ByteSource>,
    /// Scheme.
    pub scheme: Scheme,
    /// Seed of everything random.
    pub seed: u64,
    /// Text of calibration, unless the scheme needs none and nobody asked for it.
    pub calibration: Option<&'a Calibration>,
    /// Bytes of statistics on the host at a time.
    pub memory: u64,
    /// Folder to write.
    pub out: &'a Path,
    /// Replace a folder that girih wrote.
    pub force: bool,
    /// Throw away an unfinished run with other options.
    pub restart: bool,
}

/// What [`Job::run`] made; without its final name until [`Written::finish`].
pub struct Written {
    partial: Partial,
    /// Report of every matrix.
    pub modules: Vec<Value>,
    /// Bytes of the weights before.
    pub bytes_before: u64,
    /// Bytes of the weights after.
    pub bytes_after: u64,
    /// Steps that an earlier run had done.
    pub resumed: usize,
}

/// What is known about a quantised matrix beside its numbers.
struct ModuleInfo {
    rows: usize,
    k: usize,
    /// Rows of calibration that were left out.
    rejected: u64,
    /// Of an expert: layer, number, and how many tokens of calibration it was given, if there was calibration.
    expert: Option<(u32, u32, Option<u64>)>,
}

/// Refuses a checkpoint that is quantised already, and returns its configuration.
pub async fn dense_config(source: &dyn ByteSource, name: &str) -> Result<Map<String, Value>, Failure> {
    const FILE: &str = "config.json";
    let named = |source: LoadError| Failure::Model { name: name.to_owned(), source: source.into() };
    let files = source.list().unwrap_or_default();
    let any = |end: &str| files.iter().any(|file| file.to_ascii_lowercase().ends_with(end));
    if any(".gguf") && !any(".safetensors") {
        return Err(Error::Gguf { model: name.to_owned() }.into());
    }
    let bytes = read_whole(source, FILE, MAX_TEXT).await.map_err(named)?;
    let bytes = bytes.ok_or_else(|| named(LoadError::NoFile { file: FILE.into() }))?;
    let invalid = |message: String| named(LoadError::Json { file: FILE.into(), message });
    let config: Value = serde_json::from_slice(&bytes).map_err(|e| invalid(e.to_string()))?;
    let Value::Object(config) = config else { return Err(invalid("must be an object".into())) };
    let stated = ["quantization_config", "compression_config"].map(|field| config.get(field));
    if let Some(found) = stated.into_iter().flatten().find(|v| !v.is_null()) {
        let method = found["quant_method"].as_str().unwrap_or("an unknown method").to_owned();
        return Err(Error::Quantized { model: name.to_owned(), method }.into());
    }
    Ok(config)
}

impl Job<'_> {
    /// Quantises everything into `OUT.partial`.
    pub async fn run(&self, name: &str, bar: &ProgressBar) -> Result<Written, Failure> {
        check_target(self.out, self.force)?;
        let mut config = dense_config(&**self.source, name).await?;
        let table = TensorTable::open(&**self.source).await?;
        let weights = Weights::new(self.source.clone(), table.clone(), WeightPolicy::default());
        let steps = Step::all(self.model, &weights).await?;
        bar.set_message("reading the checkpoint");
        let partial = Partial::open(self.out, &self.manifest(&config, &table).await?, self.restart)?;
        let done: Vec<bool> = (0..steps.len()).map(|i| partial.info(i).is_some()).collect();
        let resumed = done.iter().filter(|d| **d).count();
        bar.set_length(steps.len() as u64);
        bar.set_position(resumed as u64);
        let pending: Vec<usize> = (0..steps.len()).filter(|&i| !done[i]).collect();
        let mut rest = pending.as_slice();
        while !rest.is_empty() {
            let (group, tail) = rest.split_at(self.group(&steps, rest));
            rest = tail;
            let wanted = |&i: &usize| {
                let step = &steps[i];
                Statistics::new(step, true, 0..self.first_experts(step), self)
            };
            let mut statistics: Vec<Statistics<'_>> = group.iter().map(wanted).collect();
            self.collect(&mut statistics, bar).await?;
            for (&i, statistics) in group.iter().zip(statistics) {
                let step = &steps[i];
                bar.set_message(format!("rounding {}", step.name()));
                warn_of_rejected(step, &statistics, bar);
                let (quantized, infos) = match step {
                    Step::Linear(linear) => self.quantize(linear, &weights, statistics.all).await?,
                    Step::Experts(experts) => {
                        self.quantize_experts((step, experts.as_ref()), &weights, statistics, bar).await?
                    }
                };
                let (tensors, info) = tensors(&quantized, &infos);
                partial.write(i, tensors, &info)?;
                bar.inc(1);
            }
        }
        let mut modules = Vec::new();
        for i in 0..steps.len() {
            let info = partial.info(i).ok_or(Error::Vanished { folder: partial.path().to_owned() })?;
            modules.extend(info.as_array().into_iter().flatten().cloned());
        }
        bar.set_message("writing");
        config.insert("quantization_config".into(), self.quantization_config(&modules));
        partial.write_file("config.json", &pretty(&Value::Object(config)))?;
        self.copy_texts(&partial).await?;
        let bytes_after = self.assemble(&partial, &steps, &table).await?;
        Ok(Written { partial, modules, bytes_before: table.bytes(), bytes_after, resumed })
    }

    /// How many of the steps share a pass of the calibration text.
    fn group(&self, steps: &[Step], rest: &[usize]) -> usize {
        if self.calibration.is_none() {
            return 1;
        }
        let bytes = rest.iter().map(|&i| steps[i].bytes(self.scheme.needs_hessian()));
        fitting(bytes, self.memory).max(1)
    }

    async fn quantize(
        &self,
        step: &LinearStep,
        weights: &Weights,
        stats: Option<InputStats>,
    ) -> Result<(QuantizedLinear, Vec<ModuleInfo>), Failure> {
        let stats = stats.filter(|_| self.calibration.is_some());
        let mut matrices = Vec::new();
        for (module, &n) in step.modules.iter().zip(&step.rows) {
            matrices.push(weights.matrix_f32(weight(module).as_str(), n, step.k).await?);
        }
        let modules: Vec<Module<'_>> = step
            .modules
            .iter()
            .zip(&step.rows)
            .zip(&matrices)
            .map(|((name, &n), weight)| Module { name, n: n as usize, weight })
            .collect();
        let (k, rejected) = (step.k as usize, stats.as_ref().map_or(0, |s| s.rejected));
        let infos = modules.iter().map(|m| ModuleInfo { rows: m.n, k, rejected, expert: None }).collect();
        Ok((quantize_linear(&self.scheme, &modules, stats.as_ref(), self.seed)?, infos))
    }

    /// What must be equal for an unfinished run to go on.
    async fn manifest(&self, config: &Map<String, Value>, table: &TensorTable) -> Result<Value, Failure> {
        let config = Value::Object(config.clone()).to_string();
        Ok(json!({
            "girih": env!("CARGO_PKG_VERSION"),
            "scheme": self.scheme.to_string(),
            "seed": self.seed,
            "checkpoint": digest::checkpoint(&**self.source, table).await?,
            "configuration": hash(config.as_bytes()),
            "calibration": self.calibration.map(|c| hash(id_bytes(&c.windows).as_slice())),
        }))
    }

    fn quantization_config(&self, modules: &[Value]) -> Value {
        let modules: Map<String, Value> = modules
            .iter()
            .map(|m| {
                let mut entry = json!({ "format": m["format"], "activation": m["activation"] });
                if !m["hadamard"].is_null() {
                    entry["hadamard"] = m["hadamard"].clone();
                }
                (m["name"].as_str().unwrap_or_default().to_owned(), entry)
            })
            .collect();
        json!({ "quant_method": "girih", "version": VERSION, "scheme": self.scheme.to_string(), "seed": self.seed,
            "modules": modules })
    }

    /// Tokenizer, template, licence: whatever is no weight.
    async fn copy_texts(&self, partial: &Partial) -> Result<(), Failure> {
        let mut files = self.source.list().unwrap_or_default();
        // Parts of sentence-transformers lie in subfolders.
        if let Some(bytes) = read_whole(&**self.source, MODULES, MAX_TEXT).await? {
            let modules: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            let paths = modules.as_array().into_iter().flatten().filter_map(|m| m["path"].as_str());
            files.extend(paths.filter(|p| !p.is_empty()).map(|p| format!("{p}/config.json")));
        }
        for file in files.iter().filter(|file| is_text(file)) {
            if let Some(bytes) = read_whole(&**self.source, file, MAX_TEXT).await? {
                partial.write_file(file, &bytes)?;
            }
        }
        Ok(())
    }

    /// Writes the weight files and returns their size.
    async fn assemble(&self, partial: &Partial, steps: &[Step], table: &TensorTable) -> Result<u64, Failure> {
        let parts = DirSource::new(partial.path());
        let mut entries = BTreeMap::new();
        for info in table.iter() {
            entries.insert(info.name.clone(), Entry { info: info.clone(), origin: Origin::Dense });
        }
        for (i, step) in steps.iter().enumerate() {
            for name in step.replaced() {
                entries.remove(&name);
            }
            let part = TensorTable::open_file(&parts, &Partial::part(i)).await?;
            for info in part.iter() {
                entries.insert(info.name.clone(), Entry { info: info.clone(), origin: Origin::Part });
            }
        }
        let entries: Vec<Entry> = entries.into_values().collect();
        writer::write(partial, &**self.source, &parts, &entries, SHARD_BYTES).await
    }
}

impl Written {
    /// The folder that is not finished yet: a whole checkpoint, report apart.
    pub fn path(&self) -> &Path {
        self.partial.path()
    }

    /// Adds the report and gives the folder its name, with `force` that of a folder which girih wrote before.
    pub fn finish(self, out: &Path, force: bool, report: &Value) -> Result<(), Failure> {
        self.partial.write_file("quantize-report.json", &pretty(report))?;
        self.partial.write_file("quantize-report.html", report::page(report).as_bytes())?;
        self.partial.finish(out, force)
    }
}

/// Compares the checkpoint in `dir` with the model that it was made of.
pub async fn evaluate(
    model: &Arc<Model>,
    dir: &Path,
    ids: &[u32],
    options: EvalOptions,
) -> Result<Comparison, Failure> {
    let context = Some(model.context().min(options.window as u32 + 1));
    let source = Arc::new(DirSource::new(dir));
    let load = LoadOptions { context, ..LoadOptions::default() };
    let named = |source: LoadError| Failure::Model { name: dir.display().to_string(), source: source.into() };
    let quantized = Model::load(model.gpu(), source, load, |_| ()).await.map_err(named)?;
    let session = SessionOptions { context, ..SessionOptions::default() };
    let mut reference = Session::new(model, session)?;
    let mut session = Session::new(&quantized, session)?;
    Ok(compare(&mut session, &mut reference, ids, options, |_| ()).await?)
}

/// Says how many rows of calibration cannot be used.
fn warn_of_rejected(step: &Step, statistics: &Statistics<'_>, bar: &ProgressBar) {
    let Some(stats) = statistics.all.as_ref().filter(|stats| stats.rejected > 0) else { return };
    let (rejected, rows) = (stats.rejected, stats.rows + stats.rejected);
    bar.suspend(|| {
        eprintln!(
            "warning: {}: {rejected} of {rows} rows of calibration hold values that are not finite, and are left out",
            step.name()
        );
    });
}

/// Whether a file of a checkpoint is copied.
fn is_text(file: &str) -> bool {
    const OURS: [&str; 4] = ["config.json", "quantize-report.json", "quantize-report.html", MANIFEST];
    let name = file.to_ascii_lowercase();
    let known = [".json", ".jinja", ".txt", ".model", ".md"].iter().any(|end| name.ends_with(end));
    let legal = ["license", "notice", "use_policy"].iter().any(|start| name.starts_with(start));
    (known || legal) && !OURS.contains(&name.as_str()) && !name.ends_with(".index.json")
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// Ids of all windows as bytes, with their lengths: what the hash is of.
fn id_bytes(windows: &[Vec<u32>]) -> Vec<u8> {
    windows
        .iter()
        .flat_map(|w| std::iter::once(w.len() as u32).chain(w.iter().copied()))
        .flat_map(u32::to_le_bytes)
        .collect()
}

/// Name, element type and shape of a tensor, and its bytes.
type Tensors = Vec<(String, StoredType, Vec<usize>, Vec<u8>)>;

/// The tensors of a step, and what the report and the configuration say about its modules.
fn tensors(quantized: &QuantizedLinear, modules: &[ModuleInfo]) -> (Tensors, Value) {
    let words = |v: &[u32]| v.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    let floats = |v: &[f32]| v.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    let (mut out, mut infos) = (Vec::new(), Vec::new());
    for (m, module) in quantized.modules.iter().zip(modules) {
        let name = |suffix: &str| format!("{}.{suffix}", m.name);
        let ModuleInfo { rows, k, rejected, expert } = *module;
        let shape = |words: usize| vec![rows, words / rows.max(1)];
        out.push((name("weight_codes"), StoredType::U32, shape(m.codes.len()), words(&m.codes)));
        out.push((name("weight_scales"), StoredType::U32, shape(m.scales.len()), words(&m.scales)));
        if let Some(scale) = &quantized.input_scale {
            out.push((name("input_scale"), StoredType::F32, vec![scale.len()], floats(scale)));
        }
        let mut hadamard = Value::Null;
        let mut transform = "none".to_owned();
        match &quantized.mix {
            HostMix::None => {}
            HostMix::Hadamard { block } => {
                hadamard = (*block).into();
                let size = if *block == 0 { "row".to_owned() } else { block.to_string() };
                transform = format!("Hadamard, {size}");
            }
            HostMix::Kronecker { n1, n2, p1, p2 } => {
                out.push((name("input_p1"), StoredType::F32, vec![*n1 as usize; 2], floats(p1)));
                out.push((name("input_p2"), StoredType::F32, vec![*n2 as usize; 2], floats(p2)));
                transform = format!("Kronecker, {n1} × {n2}");
            }
        }
        let r = &m.report;
        let mut info = json!({
            "name": m.name, "rows": rows, "columns": k, "format": m.format.to_string(),
            "activation": quantized.activation.to_string(), "hadamard": hadamard, "transform": transform,
            "input_scaled": quantized.input_scale.is_some(),
            "bits_per_weight": 32.0 * (m.codes.len() + m.scales.len()) as f64 / (rows as f64 * k as f64),
            "weight_sqnr_db": r.weight_sqnr_db, "input_sqnr_db": r.input_sqnr_db, "output_sqnr_db": r.output_sqnr_db,
            "amax_over_rms_before": r.amax_over_rms_before, "amax_over_rms_after": r.amax_over_rms_after,
            "condition": r.condition, "rejected_rows": rejected, "note": quantized.note,
        });
        if let Some((layer, expert, tokens)) = expert {
            info["layer"] = layer.into();
            info["expert"] = expert.into();
            info["tokens"] = tokens.into();
        }
        infos.push(info);
    }
    (out, Value::Array(infos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use girih_model::MemorySource;

    #[test]
    fn texts_are_copied_and_our_own_files_are_not() {
        for file in ["manifest.json", "tokenizer.json", "LICENSE", "chat_template.jinja"] {
            assert!(is_text(file), "{file}");
        }
        let mut ours =
            vec!["config.json", "Config.json", "model.safetensors.index.json", "model.safetensors"];
        ours.push(MANIFEST);
        for file in ours {
            assert!(!is_text(file), "{file}");
        }
    }

    #[test]
    fn only_dense_checkpoints() {
        let config = |text: &'static str| MemorySource::new().with("config.json", text.as_bytes());
        let check = |source: MemorySource| pollster::block_on(dense_config(&source, "m"));
        assert!(check(config(r#"{ "model_type": "llama", "compression_config": null }"#)).is_ok());
        for field in ["quantization_config", "compression_config"] {
            let text = format!(r#"{{ "{field}": {{ "quant_method": "gptq" }} }}"#).leak();
            let error = check(config(text)).expect_err("quantised").to_string();
            assert!(error.contains("quantised already (gptq)"), "{error}");
        }
        let gguf = MemorySource::new().with("model-Q8_0.gguf", vec![0]);
        let error = check(gguf).expect_err("GGUF").to_string();
        assert!(error.contains("is GGUF"), "{error}");
        let error = check(MemorySource::new()).expect_err("nothing").to_string();
        assert!(error.contains("config.json"), "{error}");
    }
}
