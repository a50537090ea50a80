//! Weights and what describes them.

use std::sync::Arc;

use girih_model::checkpoint::format;
use girih_model::checkpoint::quantized::Quantization;
use girih_model::checkpoint::source::ByteSource;
use girih_model::checkpoint::table::TensorTable;
use girih_model::checkpoint::weights::Weights;
use girih_model::network::arch::KNOWN;
use girih_model::run::pooling::Pooling;
use girih_model::text::chat::ChatTemplates;
use girih_model::{Config, GenerationConfig, WeightPolicy, load_config};
use pollster::block_on;

use super::text::{converse, read_tokenizer};
use super::{Target, bounded, configs, source};
use crate::Files;

/// `model.safetensors` by itself: header, table, values.
pub const SAFETENSORS: Target = Target {
    name: "safetensors",
    only: Some("model.safetensors"),
    words: &[
        "dtype",
        "shape",
        "data_offsets",
        "F32",
        "BF16",
        "F16",
        "F64",
        "U32",
        "F8_E4M3",
        "F4",
        "BOOL",
        "I64",
    ],
    run: |input| weights(source(input)),
};

/// A folder of shards with its index.
pub const INDEX: Target = Target {
    name: "index",
    only: None,
    words: &[
        "weight_map",
        "metadata",
        "total_size",
        "model.safetensors.index.json",
        "a.safetensors",
        "../a.safetensors",
        "/etc/passwd",
        "",
    ],
    run: |input| weights(source(input)),
};

/// A GGUF file, as loading and `inspect` take it.
pub const GGUF: Target = Target { name: "gguf", only: Some("model.gguf"), words: &[], run: load };

/// Quantised checkpoints: girih's own layout and those of others.
pub const QUANTISED: Target = Target {
    name: "quantised",
    only: None,
    words: &[
        "quantization_config",
        "quant_method",
        "girih",
        "gptq",
        "awq",
        "compressed-tensors",
        "mxfp4",
        "fp8",
        "version",
        "modules",
        "format",
        "activation",
        "hadamard",
        "int4-g32-f16",
        "int5-g32-f16-z16",
        "q4_0",
        "q8_0",
        "int8-g32",
        "bits",
        "group_size",
        "desc_act",
        "sym",
        "checkpoint_format",
        "gptq_v2",
        "dynamic",
        "zero_point",
        "config_groups",
        "targets",
        "ignore",
        "weights",
        "num_bits",
        "strategy",
        "symmetric",
        "pack-quantized",
        "float-quantized",
        "nvfp4-pack-quantized",
        "weight_block_size",
        "modules_to_not_convert",
    ],
    run: load,
};

/// Reads every tensor.
fn weights(source: Arc<dyn ByteSource>) -> Result<(), String> {
    let Some(table) = bounded(block_on(TensorTable::open(&*source)))? else { return Ok(()) };
    let weights = Weights::new(source, table.clone(), WeightPolicy::default());
    dense(&weights, &table)
}

/// Reads every tensor that is a plain float.
fn dense(weights: &Weights, table: &TensorTable) -> Result<(), String> {
    for info in table.iter() {
        let shape: Vec<u32> = info.shape.iter().map(|&d| u32::try_from(d).unwrap_or(u32::MAX)).collect();
        bounded(block_on(weights.f32(&info.name, &shape)))?;
        match *shape.as_slice() {
            [n] => drop(bounded(block_on(weights.vector_f32(info.name.as_str(), n)))?),
            [n, k] => drop(bounded(block_on(weights.matrix_f32(info.name.as_str(), n, k)))?),
            _ => {}
        }
    }
    let _ = table.bytes();
    Ok(())
}

/// Reads all of a checkpoint that can be read without a device, whatever else of it is refused.
fn load(input: &Files) -> Result<(), String> {
    let Some(source) = bounded(block_on(format::checkpoint(source(input), &KNOWN)))? else { return Ok(()) };
    if let Some(tokenizer) = read_tokenizer(&source)? {
        bounded(tokenizer.encode("Ein Wort, two words.\n", true))?;
    }
    if let Some(chat) = bounded(block_on(ChatTemplates::read(&*source)))? {
        converse(&chat)?;
    }
    bounded(block_on(Pooling::load(&*source)))?;
    let Some(config) = bounded(block_on(load_config(&*source)))? else { return Ok(()) };
    configs::derive(&config)?;
    bounded(block_on(GenerationConfig::load(&*source, &config)))?;
    tensors(&source, &config)
}

/// Opens every quantised module, reads its first and last rows, and every dense tensor.
fn tensors(source: &Arc<dyn ByteSource>, config: &Config) -> Result<(), String> {
    let Some(table) = bounded(block_on(TensorTable::open(&**source)))? else { return Ok(()) };
    let Some(quantization) = bounded(block_on(Quantization::open(&**source, &config.raw, &table)))? else {
        return Ok(());
    };
    let names: Vec<String> = quantization.modules.keys().cloned().collect();
    let weights =
        Weights::with_quantization(source.clone(), table.clone(), quantization, WeightPolicy::default());
    for name in names {
        let name = format!("{name}.weight");
        for k in [None, Some(config.hidden_size), Some(config.intermediate_size)] {
            let Some(Some(module)) = bounded(block_on(weights.module(&name, k)))? else { continue };
            let _ = (module.input.describe(), module.format.to_string(), module.is_packable());
            for rows in [0..module.n.min(2), module.n.saturating_sub(1)..module.n] {
                let read = bounded(block_on(module.rows(&**source, rows.clone())))?;
                for row in read.into_iter().flatten() {
                    let _ = module.values(&row);
                }
                bounded(block_on(module.words(&**source, rows)))?;
            }
            if u64::from(module.n) * u64::from(module.k) < 1 << 16 {
                bounded(block_on(weights.matrix_f32(name.as_str(), module.n, module.k)))?;
            }
        }
    }
    dense(&weights, &table)?;
    let _ = weights.report();
    Ok(())
}
