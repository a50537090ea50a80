//! A sharded checkpoint from disk to the GPU and back.

use std::sync::Arc;

use girih_model::LoadError;
use girih_model::checkpoint::format::gguf::Gguf;
use girih_model::checkpoint::quantized::{Quantization, blocks};
use girih_model::checkpoint::source::DirSource;
use girih_model::checkpoint::table::{TensorInfo, TensorTable};
use girih_model::checkpoint::weights::{ExpertRows, TensorRows, WeightPolicy, Weights};
use girih_ops::kernels::quant::unpack_row;
use girih_ops::{Gpu, Matrix, WeightFormat};
use girih_tests::{files, goldens, gpu};
use pollster::block_on;

fn open(policy: WeightPolicy) -> Weights {
    let dir = goldens::dir().join("models/llama_mha_bf16_sharded");
    block_on(Weights::open(Arc::new(DirSource::new(dir)), policy)).expect("opens")
}

#[test]
fn matrices_arrive_as_stored() {
    let gpu = gpu();
    for force in [None, Some(WeightFormat::F32)] {
        let weights = open(WeightPolicy { force, ..WeightPolicy::default() });
        let attn = weights.scope("model.layers.1.self_attn");
        let names = ["q_proj.weight", "k_proj.weight", "v_proj.weight"];
        let rows = TensorRows::Concat(&names);
        let matrix = block_on(attn.matrix(&gpu, rows.clone(), 192, 64)).expect("loads");
        assert_eq!(matrix.parts[0].format, force.unwrap_or(WeightFormat::Bf16));
        assert_eq!(matrix.parts.len(), 1);
        let bytes = block_on(gpu.read(&matrix.parts[0].buffer)).expect("reads");
        let got: Vec<f32> = match matrix.parts[0].format {
            WeightFormat::F32 => bytes.as_chunks().0.iter().map(|&c| f32::from_le_bytes(c)).collect(),
            _ => bytes.as_chunks().0.iter().map(|&c| half::bf16::from_le_bytes(c).to_f32()).collect(),
        };
        let want = block_on(attn.matrix_f32(rows, 192, 64)).expect("loads");
        assert!(got[..want.len()] == want[..], "{force:?}");
        let q = block_on(attn.f32("q_proj.weight", &[64, 64])).expect("loads");
        assert!(q[..] == want[..q.len()]);
    }
}

#[test]
fn tensors_and_the_report() {
    let gpu = gpu();
    let weights = open(WeightPolicy::default());
    let total = weights.table().len();
    let norm = block_on(weights.tensor(&gpu, "model.norm.weight", &[64])).expect("loads");
    let want = block_on(weights.f32("model.norm.weight", &[64])).expect("loads");
    assert_eq!(block_on(norm.to_f32(&gpu)).expect("reads"), want);
    assert_eq!(weights.report().unused.len(), total - 1);
    let error = block_on(weights.tensor(&gpu, "model.norm.weight", &[63])).expect_err("shape");
    assert!(matches!(error, LoadError::Tensors { .. }));
}

/// A shard that lies about its length and an index that points out of the folder.
#[test]
fn files_outside_of_the_folder_are_not_read() {
    use girih_model::ByteSource;
    let source = DirSource::new(goldens::dir());
    for file in ["../Cargo.toml", "/etc/hostname", "", "models/../../Cargo.toml"] {
        let error = block_on(source.size(file)).expect_err(file);
        assert!(matches!(error, LoadError::FileName { .. }), "{file}: {error}");
    }
    let file = "models/qwen2/config.json";
    let error = block_on(source.read(file, 0..u64::MAX)).expect_err("too long");
    assert!(matches!(error, LoadError::Truncated { .. }));
    assert_eq!(block_on(source.size("models/nope")).expect("none"), None);
}

/// Values of a matrix on the GPU.
fn read(gpu: &Gpu, matrix: &Matrix) -> Vec<f32> {
    let k = matrix.k as usize;
    let mut out = Vec::new();
    for part in &matrix.parts {
        let bytes = block_on(gpu.read(&part.buffer)).expect("reads");
        let row_bytes = part.format.row_bytes(matrix.k) as usize;
        let rows = bytes.chunks_exact(row_bytes).take(part.rows as usize);
        let WeightFormat::Quant(format) = part.format else {
            let dense = |row: &[u8]| match part.format {
                WeightFormat::F16 => {
                    row.as_chunks().0.iter().map(|&c| half::f16::from_le_bytes(c).to_f32()).collect()
                }
                WeightFormat::Bf16 => {
                    row.as_chunks().0.iter().map(|&c| half::bf16::from_le_bytes(c).to_f32()).collect()
                }
                _ => row.as_chunks().0.iter().map(|&c| f32::from_le_bytes(c)).collect::<Vec<_>>(),
            };
            out.extend(rows.flat_map(|row| dense(row).into_iter().take(k)));
            continue;
        };
        let words = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|&c| u32::from_le_bytes(c)).collect();
        let scales = part.scales.as_ref().map(|scales| block_on(gpu.read(scales)).expect("reads"));
        let scales: Vec<u32> = scales.map_or_else(Vec::new, |bytes| words(&bytes));
        let scale_words = format.scale_words(matrix.k) as usize;
        for (i, row) in rows.enumerate() {
            let codes: Vec<u32> = words(row);
            let row = unpack_row(format, matrix.k, &codes, &scales[i * scale_words..][..scale_words]);
            out.extend(row.values(format).into_iter().map(|v| v as f32));
        }
    }
    out
}

/// The tensors of a GGUF file under ggml's names.
fn gguf(folder: &std::path::Path, file: &str) -> Weights {
    let source = files::source(folder);
    let gguf = block_on(Gguf::open(&*source, file)).expect("opens");
    let infos = gguf.tensors.iter().map(|t| TensorInfo {
        name: t.name.clone(),
        dtype: t.ty.into(),
        shape: t.shape.clone(),
        file: t.file.clone(),
        range: t.range.clone(),
    });
    let table = TensorTable::new(infos.collect()).expect("a table");
    let modules = block_on(blocks::modules(&*source, &table)).expect("blocks");
    let quantization = Quantization { modules, notes: Vec::new() };
    Weights::with_quantization(source, table, quantization, WeightPolicy::default())
}

/// A checkpoint of safetensors with what its configuration says.
fn folder(path: &std::path::Path) -> Weights {
    let source = files::source(path);
    let table = block_on(TensorTable::open(&*source)).expect("opens");
    let config = goldens::json(&path.join("config.json"));
    let config = config.as_object().expect("an object");
    let quantization = block_on(Quantization::open(&*source, config, &table)).expect("reads");
    Weights::with_quantization(source, table, quantization, WeightPolicy::default())
}

/// Gate and up, then down, in a checkpoint as its makers publish it and in the file that llama.cpp's converter makes of it.
#[test]
fn experts_of_converted_checkpoints() {
    let fixtures = files::root().join("../shared/fixtures");
    if !fixtures.join("gguf_moe").exists() {
        girih_tests::skipped("experts: ../shared/fixtures is not there");
        return;
    }
    let gpu = gpu();
    let halves = |gate, up, down| {
        let scope = "experts";
        [ExpertRows::Separate { scope, gate_up: [gate, up] }, ExpertRows::SeparateOne { scope, name: down }]
    };
    let (gate_up, down) = ("experts.gate_up_proj", "experts.down_proj");
    let cases = [
        ("mixtral", "mixtral.gguf", "block_sparse_moe", halves("w1", "w3", "w2"), 0.0),
        ("mixtral", "mixtral-q4_0.gguf", "block_sparse_moe", halves("w1", "w3", "w2"), 0.13),
        ("qwen3_moe", "qwen3_moe.gguf", "mlp", halves("gate_proj", "up_proj", "down_proj"), 0.0),
        ("qwen3_moe", "qwen3_moe-q8_0.gguf", "mlp", halves("gate_proj", "up_proj", "down_proj"), 0.005),
        ("qwen3_moe", "qwen3_moe-mxfp4.gguf", "mlp", halves("gate_proj", "up_proj", "down_proj"), 0.25),
        (
            "gpt_oss_bf16",
            "gpt_oss_bf16.gguf",
            "mlp",
            [ExpertRows::StackedTransposed(gate_up), ExpertRows::StackedTransposed(down)],
            0.0,
        ),
        (
            "gpt_oss_mxfp4",
            "gpt_oss_mxfp4.gguf",
            "mlp",
            [ExpertRows::Stacked(gate_up), ExpertRows::Stacked(down)],
            0.0,
        ),
    ];
    for (name, file, scope, rows, tolerance) in cases {
        let own = folder(&fixtures.join("models").join(name)).scope("model.layers.0").scope(scope);
        let converted = gguf(&fixtures.join("gguf_moe"), file).scope("blk.0");
        let shape = &converted.info("ffn_gate_exps.weight").expect("gates").shape;
        let [e, i, c] = [0, 1, 2].map(|d| shape[d] as u32);
        let theirs = [
            ExpertRows::StackedPair("ffn_gate_exps.weight", "ffn_up_exps.weight"),
            ExpertRows::Stacked("ffn_down_exps.weight"),
        ];
        for ((own_rows, their_rows), shape) in rows.into_iter().zip(theirs).zip([[e, 2 * i, c], [e, c, i]]) {
            let want = block_on(own.experts_f32(own_rows, shape)).expect("loads");
            let got = block_on(converted.experts_f32(their_rows, shape)).expect("loads");
            assert_eq!(got.len(), want.len());
            let largest = want.iter().fold(0.0f32, |a, v| a.max(v.abs()));
            let off = got.iter().zip(&want).fold(0.0f32, |a, (g, w)| a.max((g - w).abs()));
            assert!(off <= tolerance * largest && largest > 0.0, "{file} {own_rows:?}: {off} of {largest}");
            for (weights, rows, values) in [(&own, own_rows, &want), (&converted, their_rows, &got)] {
                let matrix = block_on(weights.experts(&gpu, rows, shape)).expect("loads");
                assert_eq!([matrix.experts, matrix.n, matrix.k], [e, e * shape[1], shape[2]]);
                assert!(read(&gpu, &matrix) == *values, "{file} {rows:?}");
            }
        }
        assert_eq!(converted.report().notes, Vec::<String>::new());
    }
}
