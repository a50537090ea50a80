//! Rows, types and what does not fit, on checkpoints in memory.

use std::sync::Arc;

use girih_ops::WeightFormat;

use super::rows::*;
use super::upload::chunks;
use super::*;
use crate::checkpoint::table::StoredType;
use crate::testing::block_on;
use crate::{LoadError, MemorySource};

/// Tensors [name, type, shape, values]; the data of each follows that of the one before.
pub(super) fn source(tensors: &[(&str, StoredType, &[u32], &[f32])]) -> Arc<MemorySource> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, dtype, shape, values) in tensors {
        let begin = data.len();
        for &v in *values {
            match dtype {
                StoredType::F32 => data.extend(v.to_le_bytes()),
                StoredType::F16 => data.extend(half::f16::from_f32(v).to_le_bytes()),
                StoredType::BF16 => data.extend(half::bf16::from_f32(v).to_le_bytes()),
                StoredType::F64 => data.extend(f64::from(v).to_le_bytes()),
                _ => data.push(v as u8),
            }
        }
        let entry = serde_json::json!({
            "dtype": dtype.name(), "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert((*name).to_owned(), entry);
    }
    let header = serde_json::to_vec(&header).expect("serialises");
    let file = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
    Arc::new(MemorySource::new().with("model.safetensors", file))
}

pub(super) fn weights(tensors: &[(&str, StoredType, &[u32], &[f32])], policy: WeightPolicy) -> Weights {
    block_on(Weights::open(source(tensors), policy)).expect("opens")
}

const A: &[f32] = &[1.0, 2.0, 3.0, 4.0];
const B: &[f32] = &[5.0, 6.0, 7.0, 8.0];

fn two() -> Weights {
    use StoredType::{BF16, F16, F32, U8};
    weights(
        &[
            ("m.a", BF16, &[2, 2], A),
            ("m.b", BF16, &[2, 2], B),
            ("m.h", F16, &[2, 2], B),
            ("m.v", F32, &[4], A),
            ("m.i", U8, &[4], A),
            ("m.rotary_emb.inv_freq", F32, &[4], A),
        ],
        WeightPolicy::default(),
    )
}

#[test]
fn rows_are_put_together() {
    let w = two().scope("m");
    let get = |rows: TensorRows<'_>, n| block_on(w.matrix_f32(rows, n, 2)).expect("loads");
    assert_eq!(get(TensorRows::All("a"), 2), A);
    assert_eq!(get(TensorRows::Concat(&["b", "a", "h"]), 6), [B, A, B].concat());
    assert_eq!(get(TensorRows::Interleave("a", "b"), 4), [1., 2., 5., 6., 3., 4., 7., 8.]);
    assert_eq!(get(TensorRows::Slice { name: "a", rows: 1..2 }, 1), [3., 4.]);
    let vector = |rows: TensorRows<'_>, n| block_on(w.vector_f32(rows, n)).expect("loads");
    assert_eq!(vector(TensorRows::ConcatHalvesInterleaved("v"), 4), [1., 3., 2., 4.]);
    assert_eq!(vector(TensorRows::Concat(&["v", "v"]), 8), [A, A].concat());
    assert_eq!(vector(TensorRows::Slice { name: "v", rows: 1..3 }, 2), [2., 3.]);
    assert_eq!(w.report().unused, ["m.i"]);
}

/// Every way of splitting the rows into chunks gives the same bytes.
#[test]
fn chunks_join_seamlessly() {
    let values: Vec<f32> = (0..42).map(|i| i as f32).collect();
    let w = weights(
        &[("a", StoredType::F16, &[14, 3], &values), ("b", StoredType::F16, &[7, 3], &values[..21])],
        WeightPolicy::default(),
    );
    let parts = ["b", "a"];
    let cases = [
        (TensorRows::Concat(&parts), 21),
        (TensorRows::ConcatHalvesInterleaved("a"), 14),
        (TensorRows::Interleave("a", "a"), 28),
        (TensorRows::Slice { name: "a", rows: 3..10 }, 7),
    ];
    for (rows, n) in cases {
        let segments = block_on(w.segments(&rows, n, Some(3))).expect("fits");
        let whole = block_on(w.rows(&segments, &(0..n), 3, WeightFormat::F16)).expect("loads");
        for size in 1..=n {
            let split: Vec<u8> = chunks(n, 3, u64::from(size) * 24)
                .flat_map(|r| block_on(w.rows(&segments, &r, 3, WeightFormat::F16)).expect("loads"))
                .collect();
            assert!(split == whole, "{rows:?} in chunks of {size}");
        }
    }
}

#[test]
fn types() {
    let w = two().scope("m");
    let type_of = |names: &[&str]| {
        let n = 2 * names.len() as u32;
        let segments = block_on(w.segments(&TensorRows::Concat(names), n, Some(2))).expect("fits");
        let layout = w.layout(&segments, [1, n], WeightPolicy::default()).expect("float");
        assert_eq!(layout.parts.len(), 1);
        layout.parts[0].1
    };
    assert_eq!(type_of(&["a", "b"]), WeightFormat::Bf16);
    assert_eq!(type_of(&["a", "h"]), WeightFormat::F32);
    let error = block_on(w.f32("i", &[4])).expect_err("integers");
    assert!(matches!(error, LoadError::StoredType { got: "U8", .. }), "{error}");
    let wide = weights(&[("w", StoredType::F64, &[2], &[0.5, 3.0])], WeightPolicy::default());
    assert_eq!(block_on(wide.f32("w", &[2])).expect("rounds"), [0.5, 3.0]);
}

#[test]
fn what_does_not_fit_is_named() {
    let w = two();
    let error = block_on(w.scope("m").f32("nope", &[1])).expect_err("missing");
    assert!(matches!(&error, LoadError::Tensors { missing, .. } if missing == &["m.nope"]), "{error}");
    for (rows, n, k) in [
        (TensorRows::All("m.a"), 3, 2),
        (TensorRows::All("m.a"), 2, 4),
        (TensorRows::Concat(&["m.a", "m.b"]), 5, 2),
        (TensorRows::Concat(&["m.a", "m.b"]), 3, 2),
        (TensorRows::Concat(&["m.a", "m.v"]), 6, 2),
        (TensorRows::Concat(&[]), 1, 2),
        (TensorRows::Interleave("m.a", "m.b"), 3, 2),
        (TensorRows::Slice { name: "m.a", rows: 1..3 }, 2, 2),
        (TensorRows::Slice { name: "m.a", rows: 0..1 }, 2, 2),
    ] {
        let error = block_on(w.matrix_f32(rows.clone(), n, k)).expect_err("does not fit");
        assert!(
            matches!(&error, LoadError::Tensors { mis_shaped, .. } if mis_shaped.len() == 1),
            "{rows:?}: {error}"
        );
    }
}

#[test]
fn values_that_are_no_numbers() {
    for dtype in [StoredType::F32, StoredType::F16, StoredType::BF16, StoredType::F64] {
        let w = weights(&[("w", dtype, &[2, 2], &[0.0, 1.0, f32::NAN, 1.0])], WeightPolicy::default());
        let segments = block_on(w.segments(&TensorRows::All("w"), 2, Some(2))).expect("fits");
        for want in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16] {
            let error = block_on(w.rows(&segments, &(1..2), 2, want)).expect_err("NaN");
            assert!(matches!(error, LoadError::NotFinite { index: 2, .. }), "{dtype:?}: {error}");
        }
    }
    let big = weights(&[("w", StoredType::BF16, &[1, 2], &[1.0, 1e10])], WeightPolicy::default());
    let segments = block_on(big.segments(&TensorRows::All("w"), 1, Some(2))).expect("fits");
    let error = block_on(big.rows(&segments, &(0..1), 2, WeightFormat::F16)).expect_err("too large");
    assert!(matches!(error, LoadError::OutOfRange { index: 1, want: "F16", .. }), "{error}");
}
