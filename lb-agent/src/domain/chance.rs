//! Chance for tests: the same each time, unless `LB_FUZZ_SEED` names another (`cargo xtask fuzz`).

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};

/// A generator of the test that has this number.
pub(crate) fn of_test(number: u64) -> StdRng {
    let seed = std::env::var("LB_FUZZ_SEED").map_or(0, |seed| {
        seed.parse::<u64>().expect("LB_FUZZ_SEED is a number")
    });
    // Printed with a failure only.
    if seed != 0 {
        println!("LB_FUZZ_SEED={seed}");
    }
    StdRng::seed_from_u64(number ^ seed)
}

/// Bytes made of good ones: up to three times cut off, something odd put in or in its place, a
/// byte left out, a piece of another one behind it.
pub(crate) fn mutated(random: &mut StdRng, good: &[&[u8]], odd: &[u8]) -> Vec<u8> {
    let mut bytes = one_of(random, good).to_vec();
    for _ in 0..random.random_range(0..4) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, *one_of(random, odd)),
            2 if at < bytes.len() => bytes[at] = *one_of(random, odd),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            _ => {
                let other = one_of(random, good);
                bytes.extend(&other[random.random_range(0..=other.len())..]);
            }
        }
    }
    bytes
}

/// Changes a document somewhere: a value becomes another, a field is left out or added, an element
/// doubled. `words` are names and texts that mean something in it.
pub(crate) fn mutate(random: &mut StdRng, document: &mut Value, words: &[&str]) {
    // Down to some depth, or the end.
    if random.random_ratio(4, 5) {
        let inner = match document {
            Value::Array(list) if !list.is_empty() => {
                let at = random.random_range(0..list.len());
                list.get_mut(at)
            }
            Value::Object(fields) if !fields.is_empty() => {
                let at = random.random_range(0..fields.len());
                fields.values_mut().nth(at)
            }
            _ => None,
        };
        if let Some(inner) = inner {
            return mutate(random, inner, words);
        }
    }
    match document {
        Value::Array(list) if !list.is_empty() && random.random() => {
            let at = random.random_range(0..list.len());
            match random.random() {
                true => list.push(list[at].clone()),
                false => drop(list.remove(at)),
            }
        }
        Value::Object(fields) if !fields.is_empty() && random.random() => {
            let at = random.random_range(0..fields.len());
            let name = fields.keys().nth(at).cloned().unwrap_or_default();
            match random.random() {
                true => drop(fields.insert((*one_of(random, words)).into(), value(random, words))),
                false => drop(fields.remove(&name)),
            }
        }
        other => *other = value(random, words),
    }
}

/// Some value.
fn value(random: &mut StdRng, words: &[&str]) -> Value {
    match random.random_range(0..12) {
        0 => Value::Null,
        1 => json!(random.random::<bool>()),
        2 => json!(*one_of(
            random,
            &[0_i64, 1, -1, 80, 100, 65_535, 65_536, i64::MAX, i64::MIN]
        )),
        3 => json!(*one_of(random, &[0.5, -0.0, 99.995, 1e300])),
        4 => json!([]),
        5 => json!({}),
        6 => json!([*one_of(random, words)]),
        7 => json!({ (*one_of(random, words)): *one_of(random, words) }),
        _ => json!(*one_of(random, words)),
    }
}

/// One of them.
pub(crate) fn one_of<'a, T>(random: &mut StdRng, all: &'a [T]) -> &'a T {
    all.choose(random)
        .expect("there is something to choose from")
}
