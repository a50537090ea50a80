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
    #[arg(long)]
    reference: bool,
}

impl Logits {
    /// Runs the command.
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let gpu = device::open(global).await?;
        let model = self.model.load(&gpu, global).await?;
        let mut session = Session::new(&model, SessionOptions::default())?;
        let mut trace = Vec::new();
        let input = [Input { slot: 0, token_ids: &self.ids }];
        let layers = self.layers.then_some(&mut trace);
        let logits = if self.reference {
            let (mut frame, logits) = session.record(&input, Rows::All, layers)?;
            frame.run_twins(|_| true).await?;
            logits
        } else {
            session.forward(&input, Rows::All, layers)?
        };
        let mut tensors = BTreeMap::new();
        let names =
            std::iter::once("hidden.embed".to_owned()).chain((0..).map(|i| format!("hidden.layer{i}")));
        for (name, tensor) in names.zip(&trace).chain([("logits".to_owned(), &logits)]) {
            let shape: Vec<usize> = tensor.shape().iter().map(|&d| d as usize).collect();
            let values = tensor.to_f32(&gpu).await?;
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            tensors.insert(name, (shape, bytes));
        }
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
        let part = self.out.with_extension("part");
        let written = std::fs::write(&part, &file).and_then(|()| std::fs::rename(&part, &self.out));
        if let Err(source) = written {
            let _ = std::fs::remove_file(&part);
            return Err(Failure::File { path: self.out.display().to_string(), source });
        }
        let mut out = std::io::stdout().lock();
        let names: Vec<&String> = tensors.keys().collect();
        if global.json {
            writeln!(out, "{}", json!({ "file": self.out, "tensors": names, "shape": logits.shape() }))?;
        } else {
            writeln!(out, "{}: logits {:?}, {} tensors", self.out.display(), logits.shape(), names.len())?;
        }
        Ok(())
    }
}
