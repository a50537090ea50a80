//! `girih logits`: raw numbers for comparing with another implementation.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use girih_model::{Input, Rows, Session, SessionOptions};
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::json;

use crate::error::Failure;
use crate::models::ModelArgs;
use crate::{Global, device};

/// Arguments.
#[derive(Debug, Args)]
pub struct Logits {
    #[command(flatten)]
    model: ModelArgs,
    /// Token ids, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
    ids: Vec<u32>,
    /// safetensors file to write: `logits` [T, V] f32
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Also write `hidden.embed` and `hidden.layerI`: the residual stream [T, C] before the first and after each layer
    #[arg(long)]
    layers: bool,
    /// Compute with the CPU definition of every kernel instead of its shader: the numbers that the GPU's should be
    #[arg(long, conflicts_with = "expert_memory")]
    reference: bool,
}

impl Logits {
    /// Runs the command.
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let gpu = device::open(global).await?;
        let model = self.model.load(&gpu, Some(SessionOptions::default()), global).await?;
        let mut session = Session::new(&model, SessionOptions::default())?;
        let input = Input { slot: 0, token_ids: &self.ids };
        let le_bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let mut tensors = BTreeMap::new();
        let mut logits = Vec::new();
        if self.layers || self.reference {
            let mut trace = Vec::new();
            let layers = self.layers.then_some(&mut trace);
            let result = if self.reference {
                let (mut frame, result) = session.record(&[input], Rows::All, layers)?;
                frame.run_twins(|_| true).await?;
                result
            } else {
                session.forward_async(&[input], Rows::All, layers).await?
            };
            logits = le_bytes(&result.to_f32(&gpu).await?);
            let names =
                std::iter::once("hidden.embed".to_owned()).chain((0..).map(|i| format!("hidden.layer{i}")));
            for (name, tensor) in names.zip(&trace) {
                let shape: Vec<usize> = tensor.shape().iter().map(|&d| d as usize).collect();
                tensors.insert(name, (shape, le_bytes(&tensor.to_f32(&gpu).await?)));
            }
        } else {
            let keep = |rows: &[f32]| {
                logits.extend(le_bytes(rows));
                Ok(())
            };
            session.all_logits(input, keep).await?;
        }
        let shape = vec![self.ids.len(), model.config().vocab_size as usize];
        tensors.insert("logits".to_owned(), (shape.clone(), logits));
        let views = tensors
            .iter()
            .map(|(name, (shape, bytes))| {
                Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?))
            })
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
        let file = views
            .and_then(|views| serialize(views, None))
            .map_err(|e| Failure::Check(format!("the result cannot be written: {e}")))?;
        // Beside the target and renamed: a full disk leaves nothing half-written.
        let mut part = self.out.clone().into_os_string();
        part.push(format!(".{}.part", std::process::id())); // two processes may write to one place
        let written = std::fs::write(&part, &file).and_then(|()| std::fs::rename(&part, &self.out));
        if let Err(source) = written {
            let _ = std::fs::remove_file(&part);
            return Err(Failure::File { path: self.out.display().to_string(), source });
        }
        let mut out = std::io::stdout().lock();
        let names: Vec<&String> = tensors.keys().collect();
        if global.json {
            writeln!(out, "{}", json!({ "file": self.out, "tensors": names, "shape": shape }))?;
        } else {
            writeln!(out, "{}: logits {:?}, {} tensors", self.out.display(), shape, names.len())?;
        }
        Ok(())
    }
}
