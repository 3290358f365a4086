//! Whether to believe that something has vanished from Consul (keys, configuration entries).
//!
//! A deletion raises Consul's index. A server that was restored from an old snapshot, or begins
//! anew with nothing, has a lower one, and a token that lost its rights makes a list shorter at
//! the same index. So what is missing from an answer is believed gone only if the index went
//! up; else it is kept, for `hold` at most, and told of. What an answer does list counts at once.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

/// What is believed of one list. What is saved of it leaves out the holds: what is still missing
/// after a restart is held anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Believed<V> {
    /// Of the last answer that was believed as a whole.
    index: u64,
    values: BTreeMap<String, V>,
    #[serde(skip)]
    kept: BTreeMap<String, SystemTime>,
}

impl<V> Default for Believed<V> {
    fn default() -> Self {
        Self {
            index: 0,
            values: BTreeMap::new(),
            kept: BTreeMap::new(),
        }
    }
}

impl<V: Clone + PartialEq> Believed<V> {
    /// Takes in what an answer of this index lists. To be called again with the same when
    /// [`Self::next_deadline`] has come. Answers whether what counts differs.
    pub fn take(
        &mut self,
        index: u64,
        listed: &BTreeMap<String, V>,
        now: SystemTime,
        hold: Duration,
    ) -> bool {
        if self.values == *listed {
            self.index = index;
            self.kept.clear();
            return false;
        }
        let before = self.values.clone();
        let mut missing = self.values.clone();
        missing.retain(|key, _| !listed.contains_key(key));
        self.values.clone_from(listed);
        if index > self.index || missing.is_empty() {
            self.index = index;
            self.kept.clear();
            return true;
        }
        let until = now + hold;
        let former = std::mem::take(&mut self.kept);
        for (key, value) in missing {
            let until = former.get(&key).map_or(until, |known| until.min(*known));
            if now < until {
                self.kept.insert(key.clone(), until);
                self.values.insert(key, value);
            }
        }
        if self.kept.is_empty() {
            self.index = index;
        }
        self.values != before
    }

    /// What counts, by key.
    pub fn values(&self) -> &BTreeMap<String, V> {
        &self.values
    }

    /// The index of the last answer that was believed as a whole.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Keys that are gone from the list and count all the same.
    pub fn kept(&self) -> impl Iterator<Item = &str> {
        self.kept.keys().map(String::as_str)
    }

    /// When the first of them ends to count.
    pub fn next_deadline(&self) -> Option<SystemTime> {
        self.kept.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Second, index, what is listed; what counts then, kept ones in brackets.
    type Step = (u64, u64, &'static str, &'static str);

    #[test]
    fn what_vanishes_is_believed_if_the_index_went_up() {
        let stories: &[(&str, &[Step])] = &[
            (
                "a deletion acts at once",
                &[(0, 5, "a b", "a b"), (1, 6, "a", "a"), (2, 7, "", "")],
            ),
            (
                "an empty server is not believed until the hold ends",
                &[
                    (0, 5, "a b", "a b"),
                    (1, 1, "", "[a] [b]"),
                    (99, 2, "", "[a] [b]"),
                    (101, 2, "", ""),
                ],
            ),
            (
                "nor a token that sees less at the same index",
                &[
                    (0, 5, "a b", "a b"),
                    (1, 5, "b", "[a] b"),
                    (2, 5, "a b", "a b"),
                ],
            ),
            (
                "what is listed counts at once, whatever the index",
                &[(0, 5, "a", "a"), (1, 2, "b", "[a] b"), (2, 3, "a b", "a b")],
            ),
            (
                "after the hold the new history counts",
                &[
                    (0, 9, "a b", "a b"),
                    (1, 3, "b", "[a] b"),
                    (101, 3, "b", "b"),
                    (102, 4, "", ""),
                ],
            ),
        ];
        let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        for (story, steps) in stories {
            let mut believed = Believed::default();
            for (second, index, listed, expected) in *steps {
                let listed = listed.split_whitespace();
                let listed = listed.map(|key| (key.to_owned(), ())).collect();
                believed.take(*index, &listed, at(*second), Duration::from_secs(100));
                let kept: Vec<&str> = believed.kept().collect();
                let words = believed.values().keys().map(|key| {
                    if kept.contains(&key.as_str()) {
                        format!("[{key}]")
                    } else {
                        key.clone()
                    }
                });
                let words: Vec<String> = words.collect();
                assert_eq!(words.join(" "), *expected, "{story}, second {second}");
                assert_eq!(believed.next_deadline().is_some(), !kept.is_empty());
            }
        }
    }

    #[test]
    fn a_restart_does_not_make_it_forget() {
        let now = SystemTime::UNIX_EPOCH;
        let saved = BTreeMap::from([("a".to_owned(), 1)]);
        let mut believed = Believed::default();
        believed.take(9, &saved, now, Duration::ZERO);
        let text = serde_json::to_string(&believed).unwrap();
        let mut believed: Believed<i32> = serde_json::from_str(&text).unwrap();
        believed.take(3, &BTreeMap::new(), now, Duration::from_secs(10));
        assert_eq!(believed.values(), &saved);
        believed.take(10, &BTreeMap::new(), now, Duration::from_secs(10));
        assert!(believed.values().is_empty());
    }
}
