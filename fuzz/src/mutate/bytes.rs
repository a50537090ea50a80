//! Changes of bytes that know nothing of what they mean.

use crate::Random;
use crate::input::MAX_BYTES;

/// Changes some bytes.
pub fn mutate(random: &mut Random, bytes: &mut Vec<u8>, donor: &[u8], words: &[&str]) {
    let len = bytes.len();
    match random.below(13) {
        0 if len > 0 => bytes[random.below(len)] ^= 1 << random.below(8),
        1 if len > 0 => bytes[random.below(len)] = random.bits() as u8,
        2 if len > 0 => {
            let width = 1 << random.below(4);
            let number = super::number(random).to_le_bytes();
            let at = random.below(len);
            let end = (at + width).min(len);
            bytes[at..end].copy_from_slice(&number[..end - at]);
        }
        3 => {
            let range = random.range(len);
            bytes.drain(range);
        }
        4 => {
            let copied = bytes[random.range(len)].to_vec();
            insert(random, bytes, &copied);
        }
        5 => {
            let count = random.below(16) + 1;
            let filler = random.bits() as u8;
            insert(random, bytes, &vec![filler; count]);
        }
        6 => bytes.truncate(random.below(len + 1)),
        7 => {
            // Depth and length: some bytes a great number of times.
            let repeated = match random.pick(words) {
                Some(word) if random.one_in(2) => word.as_bytes().to_vec(),
                _ => bytes[random.range(len)].to_vec(),
            };
            let most = (MAX_BYTES / 2) / repeated.len().max(1);
            let count = (1 << random.below(15)).min(most);
            insert(random, bytes, &repeated.repeat(count));
        }
        8 | 9 => {
            if let Some(word) = random.pick(words) {
                insert(random, bytes, word.as_bytes());
            }
        }
        10 => {
            let piece = donor[random.range(donor.len())].to_vec();
            insert(random, bytes, &piece);
        }
        11 if !donor.is_empty() => {
            bytes.truncate(random.below(len + 1));
            bytes.extend_from_slice(&donor[random.below(donor.len())..]);
        }
        _ => digits(random, bytes),
    }
}

fn insert(random: &mut Random, bytes: &mut Vec<u8>, piece: &[u8]) {
    let at = random.below(bytes.len() + 1);
    // Over what is there, at times.
    let end = if random.one_in(3) { (at + piece.len()).min(bytes.len()) } else { at };
    bytes.splice(at..end, piece.iter().copied());
}

/// Another number in the place of one that is written out.
fn digits(random: &mut Random, bytes: &mut Vec<u8>) {
    let starts: Vec<usize> = (0..bytes.len())
        .filter(|&i| bytes[i].is_ascii_digit() && (i == 0 || !bytes[i - 1].is_ascii_digit()))
        .collect();
    let Some(&start) = random.pick(&starts) else { return };
    let count = bytes[start..].iter().take_while(|b| b.is_ascii_digit()).count();
    let number = match random.below(8) {
        0 => format!("-{}", super::number(random)),
        1 => format!("{}e{}", random.below(10), random.below(400)),
        2 => format!("0.{}", super::number(random)),
        _ => super::number(random).to_string(),
    };
    bytes.splice(start..start + count, number.into_bytes());
}
