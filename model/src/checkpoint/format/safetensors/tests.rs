//! Files, indices and what is wrong with them.

use super::*;
use crate::testing::block_on;
use crate::{MemorySource, MisShaped};

fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data, 1);
    bytes
}

fn open(bytes: Vec<u8>) -> Result<TensorTable, LoadError> {
    block_on(TensorTable::open(&MemorySource::new().with(SINGLE, bytes)))
}

const VALID: &str = r#"{"__metadata__":{"format":"pt","shape":"x"},
    "b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},
    "a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
    "e":{"dtype":"I64","shape":[0,5],"data_offsets":[20,20]}}"#;

#[test]
fn a_valid_file() {
    let table = open(file(VALID, 20)).expect("valid");
    assert_eq!(table.len(), 3);
    let b = table.get("b").expect("b");
    let start = 8 + VALID.len() as u64 + 8;
    assert_eq!(
        (b.dtype, b.shape.as_slice(), b.range.clone()),
        (StoredType::BF16, &[2, 3][..], start..start + 12)
    );
}

macro_rules! rejected {
    ($($name:ident: $bytes:expr => $pattern:pat,)*) => {
        $(#[test]
        fn $name() {
            let error = open($bytes).expect_err("must be rejected");
            assert!(matches!(&error, $pattern), "{error:?}");
            assert!(error.to_string().contains(SINGLE), "{error}");
        })*
    };
}

fn one(entry: &str, data: usize) -> Vec<u8> {
    file(&format!(r#"{{"t":{entry}}}"#), data)
}

rejected! {
    empty_file: vec![] => LoadError::Truncated { got: 0, want: 8, .. },
    half_a_length: vec![1, 0, 0] => LoadError::Truncated { got: 3, .. },
    length_beyond_file: { let mut f = file(VALID, 20); f[1] = 0xff; f } => LoadError::HeaderLength { .. },
    length_absurd: [&[0xff; 8][..], b"{}"].concat() => LoadError::HeaderLength { limit: MAX_HEADER, .. },
    not_json: file("{nonsense", 0) => LoadError::Json { .. },
    not_an_object: file("[1]", 0) => LoadError::Json { .. },
    no_dtype: one(r#"{"shape":[1],"data_offsets":[0,4]}"#, 4) => LoadError::Json { .. },
    negative_dimension: one(r#"{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}"#, 4) => LoadError::Json { .. },
    three_offsets: one(r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}"#, 4) => LoadError::Json { .. },
    trailing_text: { let h = "{} x"; file(h, 0) } => LoadError::Json { .. },
    data_truncated: file(VALID, 19) => LoadError::OutOfFile { got: 20, limit: 19, .. },
    data_too_long: file(VALID, 21) => LoadError::Hole { begin: 20, end: 21, .. },
    misordered: one(r#"{"dtype":"F32","shape":[1],"data_offsets":[4,0]}"#, 4) => LoadError::Misordered { .. },
    wrong_bytes: one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,4]}"#, 4) => LoadError::ByteCount { got: 4, .. },
    overflow: one(r#"{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}"#, 4)
        => LoadError::ByteCount { .. },
    unknown_type: one(r#"{"dtype":"Q4","shape":[1],"data_offsets":[0,4]}"#, 4) => LoadError::UnknownType { .. },
    rank: one(r#"{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}"#, 1)
        => LoadError::Rank { got: 17, .. },
    hole: file(r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
        "b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}"#, 3) => LoadError::Hole { begin: 1, end: 2, .. },
    overlap: file(r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},
        "b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#, 3) => LoadError::Overlap { got: 1, want: 2, .. },
    duplicate: file(r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
        "a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#, 2) => LoadError::Duplicate { .. },
}

fn tensors(names: &[&str]) -> Vec<u8> {
    let entries = names
        .iter()
        .enumerate()
        .map(|(i, name)| format!(r#""{name}":{{"dtype":"U8","shape":[1],"data_offsets":[{i},{}]}}"#, i + 1));
    file(&format!("{{{}}}", entries.collect::<Vec<_>>().join(",")), names.len())
}

/// Files 1 and 2 with these tensors, and this index.
fn sharded_of(index: &str, files: [&[&str]; 2]) -> Result<TensorTable, LoadError> {
    let source = MemorySource::new()
        .with(INDEX, index.as_bytes().to_vec())
        .with("1", tensors(files[0]))
        .with("2", tensors(files[1]));
    block_on(TensorTable::open(&source))
}

fn sharded(index: &str) -> Result<TensorTable, LoadError> {
    sharded_of(index, [&["a"], &["b"]])
}

#[test]
fn shards() {
    let table = sharded(r#"{"metadata":{"total_size":2},"weight_map":{"a":"1","b":"2"}}"#).expect("valid");
    assert_eq!(table.get("b").map(|t| t.file.as_str()), Some("2"));
    let error = sharded(r#"{"weight_map":{"a":"1","b":"3","c":"4"}}"#).expect_err("no files 3 and 4");
    assert!(
        matches!(&error, LoadError::MissingShard { files, tensor, .. } if files == &["3", "4"] && tensor == "b")
    );
    let error = sharded(r#"{"weight_map":{"a":"1","b":"2","c":"2"}}"#).expect_err("no c in 2");
    assert!(matches!(&error, LoadError::AbsentFromShard { tensors, .. } if tensors == &["c"]));
    let error = sharded(r#"{"weight_map":{"a":"1","a":"2"}}"#).expect_err("a twice");
    assert!(matches!(error, LoadError::Duplicate { .. }));
    let error = sharded(r#"{"weight_map":["a"]}"#).expect_err("no map");
    assert!(matches!(error, LoadError::Json { .. }));
}

#[test]
fn an_index_that_does_not_fit_its_files() {
    let place = |table: &TensorTable, name: &str| table.get(name).map(|t| t.file.clone());
    // A tensor that the index does not name; one that lies in another file than it says.
    let table = sharded_of(r#"{"weight_map":{"a":"1","b":"2"}}"#, [&["a", "x"], &["b"]]).expect("x too");
    assert_eq!(place(&table, "x").as_deref(), Some("1"));
    let table = sharded_of(r#"{"weight_map":{"a":"2","b":"1"}}"#, [&["a"], &["b"]]).expect("swapped");
    assert_eq!(place(&table, "a").as_deref(), Some("1"));
    // One that lies in both: the index says which, whatever their order.
    for file in ["1", "2"] {
        let index = format!(r#"{{"weight_map":{{"a":"1","b":"2","s":"{file}"}}}}"#);
        let table = sharded_of(&index, [&["a", "s"], &["b", "s"]]).expect("s is where the index says");
        assert_eq!(place(&table, "s").as_deref(), Some(file));
    }
    let error = sharded_of(r#"{"weight_map":{"a":"1","b":"2"}}"#, [&["a", "s"], &["b", "s"]]);
    assert!(matches!(error, Err(LoadError::Duplicate { tensor, .. }) if tensor == "s"));
}

#[test]
fn a_single_file_goes_before_an_index() {
    for index in [&br#"{"weight_map":{"a":"gone"}}"#[..], b"nonsense"] {
        let source = MemorySource::new().with(INDEX, index.to_vec()).with(SINGLE, tensors(&["a"]));
        let table = block_on(TensorTable::open(&source)).expect("the index is left over");
        assert_eq!(table.len(), 1);
    }
}

/// Names, types and texts of a header or index may be as long as the file.
#[test]
fn errors_are_short_however_long_the_names() {
    let long = "n".repeat(1 << 20);
    let entry = |dtype: &str| format!(r#"{{"dtype":"{dtype}","shape":[1],"data_offsets":[0,1]}}"#);
    for header in [
        format!(r#"{{"{long}":{}}}"#, entry("F32")),
        format!(r#"{{"{long}":{},"{long}":{}}}"#, entry("U8"), entry("U8")),
        format!(r#"{{"a":{}}}"#, entry(&long)),
        format!(r#"{{"a":{{"shape":["{long}"]}}}}"#),
        format!(r#"{{"{long}":3}}"#),
    ] {
        let error = open(file(&header, 1)).expect_err("must be rejected").to_string();
        assert!(error.len() < 2000, "{} bytes", error.len());
    }
    for index in [
        format!(r#"{{"weight_map":"{long}"}}"#),
        format!(r#"{{"weight_map":{{"{long}":"gone"}}}}"#),
        format!(r#"{{"weight_map":{{"a":"{long}"}}}}"#),
        format!(r#"{{"weight_map":{{"{long}":"1"}}}}"#),
    ] {
        let error = sharded(&index).expect_err("must be rejected").to_string();
        assert!(error.len() < 2000, "{} bytes", error.len());
    }
    let table = TensorTable::new(vec![TensorInfo {
        name: long.clone(),
        dtype: StoredType::U8,
        shape: vec![1],
        file: "f".into(),
        range: 0..1,
    }]);
    let error = table.expect("a table").check(&[("x", &[1])]).expect_err("no x").to_string();
    assert!(error.len() < 2000, "{} bytes", error.len());
}

#[test]
fn nothing_there() {
    let error = block_on(TensorTable::open(&MemorySource::new())).expect_err("no file");
    assert!(matches!(&error, LoadError::NoWeights { unread } if unread.is_empty()), "{error}");
    let source = MemorySource::new().with("pytorch_model.bin", vec![0; 8]);
    let error = block_on(TensorTable::open(&source)).expect_err("pickled").to_string();
    assert!(error.contains("pytorch_model.bin is there") && error.contains("safetensors"), "{error}");
}

#[test]
fn everything_that_is_wrong_is_reported_at_once() {
    let table = open(file(VALID, 20)).expect("valid");
    table.check(&[("a", &[2]), ("b", &[2, 3])]).expect("as wanted");
    let error = table.check(&[("x", &[1]), ("y", &[1]), ("b", &[3, 2]), ("a", &[2])]).expect_err("wrong");
    let LoadError::Tensors { missing, mis_shaped, unused } = error else { panic!("{error:?}") };
    assert_eq!((missing, unused), (vec!["x".to_owned(), "y".to_owned()], vec!["e".to_owned()]));
    assert_eq!(mis_shaped[0], MisShaped { tensor: "b".into(), got: vec![2, 3], want: vec![3, 2] });
}

/// Flips, deletions and truncations of a valid file: an answer, never a panic, and what is accepted lies in the
/// file.
#[test]
fn mutations() {
    let valid = file(VALID, 20);
    let mut random = crate::run::sampler::Rng::new(7);
    let mut accepted = 0;
    for round in 0..20_000 {
        let mut bytes = valid.clone();
        for _ in 0..=random.next_u64() % 3 {
            let at = (random.next_u64() % bytes.len().max(1) as u64) as usize;
            match random.next_u64() % 5 {
                0 => bytes.truncate(at),
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 => bytes.insert(at, random.next_u64() as u8),
                3 if at < bytes.len() => bytes[at] = b"0123456789[]{},:\"-eE."[round % 21],
                _ if at < bytes.len() => bytes[at] ^= 1 << (random.next_u64() % 8),
                _ => {}
            }
        }
        let size = bytes.len() as u64;
        if let Ok(table) = open(bytes) {
            accepted += 1;
            assert!(table.iter().all(|t| t.range.start <= t.range.end && t.range.end <= size));
        }
    }
    assert!(accepted > 0, "mutations of data bytes are harmless and must be accepted");
}
