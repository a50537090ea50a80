//! A sharded checkpoint from disk to the GPU and back.

use std::sync::Arc;

use girih_model::LoadError;
use girih_model::checkpoint::source::DirSource;
use girih_model::checkpoint::weights::{TensorRows, WeightPolicy, Weights};
use girih_ops::WeightFormat;
use girih_tests::{goldens, gpu};

fn open(policy: WeightPolicy) -> Weights {
    let dir = goldens::dir().join("models/llama_mha_bf16_sharded");
    pollster::block_on(Weights::open(Arc::new(DirSource::new(dir)), policy)).expect("opens")
}

#[test]
fn matrices_arrive_as_stored() {
    let gpu = gpu();
    for force in [None, Some(WeightFormat::F32)] {
        let weights = open(WeightPolicy { force, ..WeightPolicy::default() });
        let attn = weights.scope("model.layers.1.self_attn");
        let names = ["q_proj.weight", "k_proj.weight", "v_proj.weight"];
        let rows = TensorRows::Concat(&names);
        let matrix = pollster::block_on(attn.matrix(&gpu, rows.clone(), 192, 64)).expect("loads");
        assert_eq!(matrix.parts[0].format, force.unwrap_or(WeightFormat::Bf16));
        assert_eq!(matrix.parts.len(), 1);
        let bytes = pollster::block_on(gpu.read(&matrix.parts[0].buffer)).expect("reads");
        let got: Vec<f32> = match matrix.parts[0].format {
            WeightFormat::F32 => bytes.as_chunks().0.iter().map(|&c| f32::from_le_bytes(c)).collect(),
            _ => bytes.as_chunks().0.iter().map(|&c| half::bf16::from_le_bytes(c).to_f32()).collect(),
        };
        let want = pollster::block_on(attn.matrix_f32(rows, 192, 64)).expect("loads");
        assert!(got[..want.len()] == want[..], "{force:?}");
        let q = pollster::block_on(attn.f32("q_proj.weight", &[64, 64])).expect("loads");
        assert!(q[..] == want[..q.len()]);
    }
}

#[test]
fn tensors_and_the_report() {
    let gpu = gpu();
    let weights = open(WeightPolicy::default());
    let total = weights.table().len();
    let norm = pollster::block_on(weights.tensor(&gpu, "model.norm.weight", &[64])).expect("loads");
    let want = pollster::block_on(weights.f32("model.norm.weight", &[64])).expect("loads");
    assert_eq!(pollster::block_on(norm.to_f32(&gpu)).expect("reads"), want);
    assert_eq!(weights.report().unused.len(), total - 1);
    let error = pollster::block_on(weights.tensor(&gpu, "model.norm.weight", &[63])).expect_err("shape");
    assert!(matches!(error, LoadError::Tensors { .. }));
}

/// A shard that lies about its length and an index that points out of the folder.
#[test]
fn files_outside_of_the_folder_are_not_read() {
    use girih_model::ByteSource;
    let source = DirSource::new(goldens::dir());
    for file in ["../Cargo.toml", "/etc/hostname", "", "models/../../Cargo.toml"] {
        let error = pollster::block_on(source.size(file)).expect_err(file);
        assert!(matches!(error, LoadError::FileName { .. }), "{file}: {error}");
    }
    let file = "models/qwen2/config.json";
    let error = pollster::block_on(source.read(file, 0..u64::MAX)).expect_err("too long");
    assert!(matches!(error, LoadError::Truncated { .. }));
    assert_eq!(pollster::block_on(source.size("models/nope")).expect("none"), None);
}
