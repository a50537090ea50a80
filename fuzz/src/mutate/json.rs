//! Changes of JSON values that leave JSON.

use serde_json::{Map, Number, Value};

use crate::Random;

/// Changes one value of a JSON text; false, and nothing done, if it is none.
pub fn mutate(random: &mut Random, bytes: &mut Vec<u8>, donor: &[u8], words: &[&str]) -> bool {
    let Ok(mut value) = serde_json::from_slice::<Value>(bytes) else { return false };
    if !value.is_object() && !value.is_array() {
        return false;
    }
    let donor = serde_json::from_slice(donor).unwrap_or(Value::Null);
    for _ in 0..=random.below(2) {
        change(random, &mut value, &donor, words);
    }
    let Ok(written) = serde_json::to_vec(&value) else { return false };
    *bytes = written;
    true
}

/// Number of values within, itself included.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

/// The value number `n` within, in the order of the text.
fn nth<'a>(value: &'a mut Value, n: &mut usize) -> Option<&'a mut Value> {
    if *n == 0 {
        return Some(value);
    }
    *n -= 1;
    match value {
        Value::Array(list) => list.iter_mut().find_map(|v| nth(v, n)),
        Value::Object(map) => map.values_mut().find_map(|v| nth(v, n)),
        _ => None,
    }
}

fn any(random: &mut Random, value: &Value) -> Value {
    let mut value = value.clone();
    let mut n = random.below(count(&value));
    nth(&mut value, &mut n).map_or(Value::Null, Value::take)
}

fn change(random: &mut Random, value: &mut Value, donor: &Value, words: &[&str]) {
    let mut n = random.below(count(value));
    let whole = if random.one_in(3) { any(random, value) } else { Value::Null };
    let Some(place) = nth(value, &mut n) else { return };
    match (random.below(5), &mut *place) {
        (0 | 1, Value::Object(map)) => return object(random, map, donor, words),
        (0 | 1, Value::Array(list)) => return array(random, list),
        (0 | 1, Value::Number(old)) => {
            if let Some(tweaked) = tweak(random, old) {
                *old = tweaked;
            }
            return;
        }
        (0 | 1, Value::String(text)) => {
            let mut bytes = std::mem::take(text).into_bytes();
            super::bytes::mutate(random, &mut bytes, b"\xc3\xa9\xe2\x96\x81", words);
            *text = String::from_utf8_lossy(&bytes).into_owned();
            return;
        }
        _ => {}
    }
    *place = match random.below(8) {
        0 => any(random, donor),
        1 => whole,
        _ => fresh(random, words),
    };
}

fn object(random: &mut Random, map: &mut Map<String, Value>, donor: &Value, words: &[&str]) {
    let keys: Vec<String> = map.keys().cloned().collect();
    let key = random.pick(&keys).cloned().unwrap_or_default();
    match random.below(5) {
        0 => {
            map.shift_remove(&key);
        }
        1 => {
            // Another name.
            if let (Some(value), Some(word)) = (map.shift_remove(&key), random.pick(words)) {
                map.insert((*word).to_owned(), value);
            }
        }
        2 => {
            if let Some(donor) = donor.as_object() {
                let keys: Vec<&String> = donor.keys().collect();
                if let Some(key) = random.pick(&keys) {
                    map.insert((*key).clone(), donor[*key].clone());
                }
            }
        }
        _ => {
            let word = random.pick(words).map_or(key, |word| (*word).to_owned());
            let value = fresh(random, words);
            map.insert(word, value);
        }
    }
}

fn array(random: &mut Random, list: &mut Vec<Value>) {
    if list.is_empty() {
        return list.push(Value::from(super::number(random)));
    }
    let (i, j) = (random.below(list.len()), random.below(list.len()));
    match random.below(5) {
        0 => {
            list.remove(i);
        }
        1 => list.insert(j, list[i].clone()),
        2 => list.swap(i, j),
        3 => list.truncate(i),
        _ => {
            let value = list[i].clone();
            let times = (1 << random.below(10)).min(4096 / count(&value));
            list.extend(std::iter::repeat_n(value, times));
        }
    }
}

fn tweak(random: &mut Random, old: &Number) -> Option<Number> {
    let x = old.as_f64()?;
    match random.below(5) {
        0 => Number::from_f64(-x),
        1 => Number::from_f64(x / 2.0),
        2 => old.as_u64().map(|n| Number::from(n.wrapping_add(1))),
        3 => old.as_u64().map(|n| Number::from(n.wrapping_sub(1))),
        _ => old.as_u64().map(|n| Number::from(n.wrapping_mul(2))),
    }
}

/// A value with no relation to what was there.
fn fresh(random: &mut Random, words: &[&str]) -> Value {
    match random.below(12) {
        0 => Value::Null,
        1 => Value::Bool(random.one_in(2)),
        2 => Value::Array(Vec::new()),
        3 => Value::Object(Map::new()),
        4 => Value::String(String::new()),
        5 => {
            let floats = [0.0, -0.0, 0.5, -1.0, 1e-320, 1e-45, 1e38, 1e39, 1e308, f64::EPSILON];
            Value::from(floats[random.below(floats.len())])
        }
        6 => Value::from((super::number(random) as i64).wrapping_neg()),
        7 | 8 => Value::from(super::number(random)),
        9 => {
            // Deep.
            let mut value = Value::Null;
            for _ in 0..1 << random.below(8) {
                value = if random.one_in(2) {
                    Value::Array(vec![value])
                } else {
                    let word = random.pick(words).copied().unwrap_or("a");
                    Value::Object(Map::from_iter([(word.to_owned(), value)]))
                };
            }
            value
        }
        _ => Value::String(random.pick(words).copied().unwrap_or("x").to_owned()),
    }
}
