//! Changes of an input: of its bytes, of the structure of JSON, GGUF and safetensors files, of which files there are.

mod bytes;
mod gguf;
mod json;
mod safetensors;

use crate::{Files, Random};

/// Numbers at which something overflows, is empty or negative.
const NUMBERS: [u64; 24] = [
    0,
    1,
    2,
    3,
    7,
    16,
    32,
    64,
    127,
    128,
    255,
    256,
    1000,
    32_767,
    65_535,
    65_536,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x4000_0000_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// A number at which something may go wrong, or any.
fn number(random: &mut Random) -> u64 {
    let chosen = NUMBERS[random.below(NUMBERS.len())];
    match random.below(6) {
        0 => random.bits() >> random.below(64),
        1 => chosen.wrapping_add(1),
        2 => chosen.wrapping_sub(1),
        _ => chosen,
    }
}

/// Changes an input, with parts of `other` and words of the target at times.
pub fn mutate(random: &mut Random, input: &Files, other: &Files, words: &[&str]) -> Files {
    let mut changed = input.clone();
    for _ in 0..1 << random.below(4) {
        if changed.files.is_empty() || (random.one_in(40) && !other.files.is_empty()) {
            files(random, &mut changed, other);
            continue;
        }
        let at = random.below(changed.files.len());
        let (name, content) = &mut changed.files[at];
        let donor = other.file(name).unwrap_or_default();
        let structured = if content.starts_with(b"GGUF") {
            !random.one_in(4) && gguf::mutate(random, content, donor)
        } else if name.ends_with(".safetensors") {
            !random.one_in(4) && safetensors::mutate(random, content, donor, words)
        } else {
            !random.one_in(3) && json::mutate(random, content, donor, words)
        };
        if !structured {
            bytes::mutate(random, content, donor, words);
        }
    }
    changed.cut();
    changed
}

/// Takes a file away, or one of the other input.
fn files(random: &mut Random, input: &mut Files, other: &Files) {
    if input.files.len() > 1 && random.one_in(3) {
        input.files.remove(random.below(input.files.len()));
        return;
    }
    let Some((name, content)) = random.pick(&other.files) else { return };
    match input.files.iter_mut().find(|(n, _)| n == name) {
        Some((_, own)) => own.clone_from(content),
        None => input.files.push((name.clone(), content.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::MAX_BYTES;

    /// Mutations are the same for the same seed, differ from their origin most times, and stay small.
    #[test]
    fn mutations_repeat_and_stay_small() {
        let json = br#"{"a": [1, 2.5, {"b": "text", "c": null}], "rope_scaling": {"factor": 8.0}}"#;
        let header = br#"{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
        let tensors = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 16]].concat();
        let input = Files {
            files: vec![
                ("config.json".into(), json.to_vec()),
                ("model.safetensors".into(), tensors),
                ("chat_template.jinja".into(), b"{% for m in messages %}{{ m }}{% endfor %}".to_vec()),
            ],
        };
        let run = || {
            let mut random = Random::new(5);
            let mut last = input.clone();
            let mut changed = 0;
            for _ in 0..3000 {
                let next = mutate(&mut random, &last, &input, &["factor", "{% if"]);
                assert!(next.len() <= MAX_BYTES);
                changed += usize::from(next != last);
                last = if random.one_in(20) { input.clone() } else { next };
            }
            (last, changed)
        };
        let (first, changed) = run();
        assert_eq!((&first, changed), (&run().0, changed));
        assert!(changed > 2500, "{changed}");
    }
}
